"""The rows of ``examples.jsonl``: one per evaluated example and model; and texts before and after."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loku_exp.errors import UserError
from loku_exp.runtime.finished import check_unchanged

EXAMPLES_FILE = "examples.jsonl"
SHOWN = 3  # texts of the forget set that are shown side by side
WIDTH = 220  # characters of a text that are shown
Row = dict[str, Any]


def lines_of(rows: Iterable[Row]) -> str:
    """Return rows as the file holds them, one a line whatever characters their texts hold.

    A value that is no finite number is absent.

    Raises:
        UserError: there is one inside of a value.
    """
    lines = []
    for row in rows:
        known = {
            k: v for k, v in row.items() if not (isinstance(v, float) and not math.isfinite(v))
        }
        try:
            lines.append(json.dumps(known, ensure_ascii=True, allow_nan=False) + "\n")
        except (ValueError, TypeError) as error:
            raise UserError(
                f"row {row.get('row')} of set '{row.get('set')}' of the evaluation cannot be written "
                f"({error}); what a task says of a row must be text, finite numbers, and lists of them"
            ) from error
    return "".join(lines)


def no_constant(name: str) -> None:
    """Refuse NaN and infinity where JSON is read; they are no JSON."""
    raise ValueError(f"{name} is no number of JSON")


def read_examples(folder: Path) -> list[Row]:
    """Read the rows of a run.

    Raises:
        UserError: the file is absent or not what its run wrote, or a line is not such a row.
    """
    file = folder / EXAMPLES_FILE
    check_unchanged(file, folder)
    rows = []
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line, parse_constant=no_constant)
                if not isinstance(row, dict) or not {"model", "set", "row"} <= row.keys():
                    raise UserError(f"{file}, line {number}: no model, set and row in it")
                rows.append(row)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}, line {len(rows) + 1} is not JSON ({error})") from error
    return rows


def texts_by_model(rows: Iterable[Row], name: str) -> dict[Any, dict[str, Row]]:
    """Return the generated texts of a set: by row, then by model.

    Args:
        rows: of a run.
        name: of the set.
    """
    found: dict[Any, dict[str, Row]] = {}
    for row in rows:
        if row["set"] == name and "generation" in row:
            found.setdefault(row["row"], {})[row["model"]] = row
    return found


class Sample(NamedTuple):
    """One evaluated text under several models.

    Attributes:
        row: of its set.
        group: author or document; empty where there is none.
        asked: what it was generated from: a question, or the end of a prompt.
        truth: what the data say; empty where they say nothing.
        said: generation by model.
    """

    row: Any
    group: str
    asked: str
    truth: str
    said: dict[str, str]


def shown_texts(rows: Iterable[Row], name: str = "forget", count: int = SHOWN) -> list[Sample]:
    """Return the first texts of a set that both target and unlearned model continued.

    Args:
        rows: of a run.
        name: of the set.
        count: how many at most.
    """
    found = []
    for number, models in texts_by_model(rows, name).items():
        if {"target", "unlearned"} <= models.keys():
            target = models["target"]
            said = {model: str(row["generation"]) for model, row in models.items()}
            group, truth = str(target.get("group") or ""), str(target.get("answer", ""))
            found.append(Sample(number, group, _asked(target), truth, said))
    return found[:count]


def before_and_after(rows: Iterable[Row], count: int = SHOWN) -> list[str]:
    """Return the first texts of the forget set with what target and unlearned model make of them."""
    lines = []
    for sample in shown_texts(rows, count=count):
        group = f" ({_one_line(sample.group)})" if sample.group else ""
        lines += [
            f"forget text {sample.row}{group}: {_start(sample.asked)}",
            f"  true:   {_start(sample.truth)}",
            f"  before: {_start(sample.said['target'])}",
            f"  after:  {_start(sample.said['unlearned'])}",
        ]
    return lines


def _asked(row: Mapping[str, Any]) -> str:
    """Return what a text was generated from: a question, or the end of a prompt."""
    return str(row.get("question") or "… " + str(row.get("prompt", ""))[-WIDTH // 2 :])


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _start(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= WIDTH else shown[:WIDTH] + "…"
