"""Rows of two runs in pairs: only of equal data, scoring and tokens."""

from pathlib import Path
from typing import Any

from loku_exp.errors import UserError, nearest
from loku_exp.results import files as results
from loku_exp.results.examples import Row, read_examples
from loku_exp.results.schema import Record
from loku_exp.runtime.finished import DONE

SAME_PROTOCOL = ("data_digest", "scoring", "truth_ratio", "limit")
PART = " of "  # between the name of a set and one of its parts, which no mean may mix
Pairs = list[tuple[Row, Row]]


def finished_record(folder: Path) -> Record:
    """Return the record of a finished run.

    Raises:
        UserError: it is not finished, or damaged.
    """
    if not (folder / DONE).is_file():
        raise UserError(f"{folder}: not the folder of a finished run (it has no {DONE})")
    return results.read(folder)


def paired_rows(folders: tuple[Path, Path], model: str) -> dict[str, Pairs]:
    """Return the rows of a model in both runs, by set; of membership members and holdout by themselves.

    Args:
        folders: of run A and run B.
        model: e.g. ``unlearned``.

    Raises:
        UserError: the runs are of other data or scoring, a row is of another text, or there is no such
            model.
    """
    _check_comparable(*map(finished_record, folders))
    first, second = (_rows_of(folder, model) for folder in folders)
    if first.keys() != second.keys():
        apart = sorted(first.keys() ^ second.keys())[:3]
        raise UserError(
            f"{folders[0]} and {folders[1]} evaluated other rows, e.g. {apart}; nothing to pair"
        )
    found: dict[str, Pairs] = {}
    for (name, row), ours in first.items():
        theirs = second[name, row]
        if ours.get("tokens") != theirs.get("tokens"):
            raise UserError(
                f"row {row} of {name} has {ours.get('tokens')} tokens in one run, {theirs.get('tokens')} "
                "in the other: they are not the same texts under one tokenizer"
            )
        kind = "members" if ours.get("member") else "holdout"
        part = f"{PART}{kind}" if "member" in ours else ""
        found.setdefault(f"{name}{part}", []).append((ours, theirs))
    return found


def _check_comparable(a: Record, b: Record) -> None:
    for key in SAME_PROTOCOL:
        ours, theirs = a.protocol.get(key), b.protocol.get(key)
        if ours != theirs:
            raise UserError(
                f"the runs differ in {key} ({ours} and {theirs}): their rows are not pairs; compare runs "
                "on the same data and scoring"
            )


def _rows_of(folder: Path, model: str) -> dict[tuple[str, Any], Row]:
    examples = read_examples(folder)
    models = sorted({str(row["model"]) for row in examples})
    if model not in models:
        raise UserError(
            f"--model {model}: {folder} has no rows of it{nearest(model, models)} "
            f"(there are {', '.join(models) or 'none'})"
        )
    return {(row["set"], row["row"]): row for row in examples if row["model"] == model}
