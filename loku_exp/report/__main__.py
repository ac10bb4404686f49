"""Report over many finished runs, or compare two of them in pairs.

Usage:
    python -m loku_exp.report outputs/ [loss=ihl] [lora.rank=4,8] [dataset=tofu] [--to DIR]
    python -m loku_exp.report compare RUN_A RUN_B [--to DIR]
"""

import sys
from pathlib import Path

from loku_exp.runtime.programs import ending, parser_of

FOLDER = "report"


def main(arguments: list[str] | None = None) -> None:
    """Write a report or a comparison; exit code 1 with one line where it cannot be, 2 on wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    with ending():
        if given[:1] == ["compare"]:
            _compare(given[1:])
        else:
            _report(given)


def _report(given: list[str]) -> None:
    parser = parser_of(
        "loku_exp.report",
        "One page, tables and plots over many finished runs.",
        epilog="python -m loku_exp.report compare RUN_A RUN_B: two runs in pairs; see compare --help.",
    )
    parser.add_argument("folder", type=Path, help="holds run folders, at any depth")
    parser.add_argument(
        "filters",
        nargs="*",
        metavar="key=value[,value]",
        help="only runs with this choice: loss=ihl lora.rank=4,8 dataset=tofu; also seed, forget_split",
    )
    parser.add_argument("--to", type=Path, help="output folder (report, inside of that one)")
    options = parser.parse_intermixed_args(given)
    for text in options.filters:
        if "=" not in text:
            parser.error(f"'{text}' is not key=value")
    from loku_exp.report import collect, page

    found = collect.collect(options.folder)
    runs = collect.select(found.runs, options.filters)
    place = options.to or options.folder / FOLDER
    files = page.write_report(found, runs, options.folder, place)
    print(
        f"{len(runs)} of {len(found.runs)} finished runs, {len(found.unfinished)} unfinished, "
        f"{len(found.damaged)} damaged"
    )
    for text in found.damaged:
        print(f"skipped: {text}", file=sys.stderr)
    print(f"report: {files[0]} ({len(files)} files)")


def _compare(given: list[str]) -> None:
    parser = parser_of(
        "loku_exp.report compare",
        "Differences of two finished runs over the same evaluated rows, with intervals.",
    )
    parser.add_argument("a", type=Path, help="folder of a finished run")
    parser.add_argument("b", type=Path, help="folder of another one on the same data")
    parser.add_argument("--model", default="unlearned", help="which model of them (unlearned)")
    parser.add_argument(
        "--block",
        choices=("auto", "group", "row"),
        default="auto",
        help="what is resampled: group (author), row (document); auto: as the suite says",
    )
    parser.add_argument("--resamples", type=int, default=10000, help="of the bootstrap (10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    parser.add_argument("--to", type=Path, help="output folder (report, beside run A)")
    options = parser.parse_args(given)
    if options.resamples < 1 or options.seed < 0:
        parser.error("--resamples must be at least 1 and --seed at least 0")
    from loku_exp.report import compare

    comparison = compare.compare(
        options.a,
        options.b,
        model=options.model,
        block=options.block,
        resamples=options.resamples,
        seed=options.seed,
    )
    compare.show_comparison(comparison)
    for file in compare.write_comparison(comparison, options.to or options.a.parent / FOLDER):
        print(f"written: {file}")


if __name__ == "__main__":
    main()
