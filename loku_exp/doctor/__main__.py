"""Say what this machine has and what can run on it; exit code 1 where something must be mended first.

Usage:
    python -m loku_exp.doctor [--cache-dir DIR] [--output-dir DIR] [--json]
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

from loku_exp.runtime.programs import ending, parser_of

CACHE = os.environ.get("LOKU_CACHE", "~/.cache/loku_exp")


def main(arguments: list[str] | None = None) -> None:
    """Print what was found; the last line says whether anything is wrong."""
    parser = parser_of("loku_exp.doctor", __doc__)
    parser.add_argument("--cache-dir", type=Path, default=Path(CACHE), help=f"of runs ({CACHE})")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="of runs (outputs)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ending():
        from loku_exp.doctor.checks import examine

        found = examine(options.cache_dir.expanduser(), options.output_dir.expanduser())
        wrong = [finding for finding in found if finding.wrong]
        if options.json:
            print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=1))
        else:
            part = None
            for finding in found:
                if finding.part != part:
                    print(f"{finding.part}:")
                    part = finding.part
                print(f"  {finding.name:<22} {finding.value}")
            for finding in wrong:
                print(f"WRONG: {finding.name}: {finding.wrong}")
            if not wrong:
                print("nothing is wrong; python -m loku_exp is a first run")
        if wrong:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
