"""List what the cache holds, and remove what is not wanted: what is removed is made again when needed.

Usage:
    python -m loku_exp.cache                                 what there is, by kind
    python -m loku_exp.cache --kind models --days 30         models not written for a month
    python -m loku_exp.cache --state damaged --prune         and removes it
"""

import os
import sys
from pathlib import Path

from loku_exp.errors import UserError
from loku_exp.runtime.programs import ending, parser_of
from loku_exp.runtime.sizes import size_in_words

STATES = ("whole", "damaged", "unfinished")
SHOWN = 20  # entries, the largest


def main(arguments: list[str] | None = None) -> None:
    """List or prune; exit code 1 with one line where there is no such cache."""
    parser = parser_of("loku_exp.cache", __doc__)
    place = os.environ.get("LOKU_CACHE", "~/.cache/loku_exp")
    parser.add_argument("--cache-dir", type=Path, default=Path(place), help=f"of runs ({place})")
    parser.add_argument("--kind", help="only this one, e.g. models, answers, fisher")
    parser.add_argument("--state", choices=STATES, help="only what is in this state")
    parser.add_argument(
        "--days", type=float, default=0, help="only what was not written for so long"
    )
    parser.add_argument("--prune", action="store_true", help="remove what was chosen")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ending():
        _main(
            options.cache_dir.expanduser(), options.kind, options.state, options.days, options.prune
        )


def _main(root: Path, kind: str | None, state: str | None, days: float, prune: bool) -> None:
    from loku_exp.cache.entries import entries_in, remove

    if not root.is_dir():
        raise UserError(f"--cache-dir {root}: there is no cache yet; runs make it (cache_dir=...)")
    if days < 0:
        raise UserError(f"--days {days:g}: must be at least 0")
    found = entries_in(root)
    kinds = sorted({entry.kind for entry in found})
    if kind is not None and kind not in kinds:
        raise UserError(
            f"--kind {kind}: nothing of it here; there are {', '.join(kinds) or 'no kinds'}"
        )
    chosen = [
        entry
        for entry in found
        if kind in (None, entry.kind) and state in (None, entry.state) and entry.days >= days
    ]
    for entry in chosen[:SHOWN]:
        name = entry.path.relative_to(root)
        print(f"{size_in_words(entry.size):>10}  {entry.days:6.1f} days  {entry.state:<10}  {name}")
    if len(chosen) > SHOWN:
        print(f"and {len(chosen) - SHOWN} smaller ones")
    for each in sorted({entry.kind for entry in chosen}):
        sizes = [entry.size for entry in chosen if entry.kind == each]
        print(f"{size_in_words(sum(sizes)):>10}  in {len(sizes)} {each}")
    total = size_in_words(sum(entry.size for entry in chosen))
    if not prune:
        print(f"{total:>10}  in all, in {root}; --prune removes it")
        return
    removed, kept = remove(chosen)
    print(f"removed: {len(removed)}, {size_in_words(sum(entry.size for entry in removed))}")
    for entry in kept:
        print(f"kept, in use: {entry.path.relative_to(root)}")


if __name__ == "__main__":
    main()
