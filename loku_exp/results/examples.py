"""The rows of ``examples.jsonl``: one per evaluated example and model; and texts before and after."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loku_exp.errors import UserError

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
        UserError: the file is absent, or a line is not such a row.
    """
    file = folder / EXAMPLES_FILE
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


def before_and_after(rows: Iterable[Row], count: int = SHOWN) -> list[str]:
    """Return the first texts of the forget set with what target and unlearned model make of them."""
    lines = []
    pairs = [
        (number, models)
        for number, models in texts_by_model(rows, "forget").items()
        if {"target", "unlearned"} <= models.keys()
    ]
    for number, models in pairs[:count]:
        target = models["target"]
        group = f" ({_one_line(str(target['group']))})" if target.get("group") else ""
        lines += [
            f"forget text {number}{group}: {_start(_asked(target))}",
            f"  true:   {_start(target.get('answer', ''))}",
            f"  before: {_start(target['generation'])}",
            f"  after:  {_start(models['unlearned']['generation'])}",
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
