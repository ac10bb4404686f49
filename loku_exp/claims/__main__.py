"""Judge registered claims by the records of finished runs: yes, no, or undecided, by rules written before.

Usage:
    python -m loku_exp.claims outputs/ [--claims docs/claims.yaml] [--to DIR]
"""

import sys
from pathlib import Path

from loku_exp.errors import UserError
from loku_exp.runtime.programs import ending, parser_of

CLAIMS = Path("docs/claims.yaml")


def main(arguments: list[str] | None = None) -> None:
    """Print the verdicts and write them; exit code 1 with one line where there is nothing to judge."""
    parser = parser_of("loku_exp.claims", __doc__)
    parser.add_argument("folder", type=Path, help="holds run folders, at any depth")
    parser.add_argument("--claims", type=Path, default=CLAIMS, help=f"a yaml file ({CLAIMS})")
    parser.add_argument("--to", type=Path, help="output folder (claims, inside of that one)")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ending():
        from loku_exp.claims.judging import judge_claims
        from loku_exp.claims.registered import read_claims
        from loku_exp.claims.shown import show_verdicts, write_verdicts
        from loku_exp.report.collect import collect

        if not options.claims.is_file():
            raise UserError(
                f"--claims {options.claims}: no such file; name one: --claims FILE (LoKU's are "
                "docs/claims.yaml of the source)"
            )
        if not options.folder.is_dir():
            raise UserError(f"{options.folder}: no such folder")
        claims = read_claims(options.claims)
        found = collect(options.folder)
        judged = judge_claims(claims, found.runs)
        judged.left_out |= dict.fromkeys(found.damaged, "")  # which name their files
        files = write_verdicts(judged, claims, options.to or options.folder / "claims")
        show_verdicts(judged)
        for file in files:
            print(f"written: {file}")


if __name__ == "__main__":
    main()
