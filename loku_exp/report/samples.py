"""What models say before and after: a few evaluated texts side by side, and rows in pairs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loku_exp.errors import UserError
from loku_exp.report.collect import Run
from loku_exp.results import files as results

SHOWN = {"forget": 3, "retain": 2}
WIDTH = 280  # characters of a text that are shown
ROLES = ("target", "unlearned", "reference")
Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One evaluated text under every model.

    Attributes:
        name: its set, row and group.
        asked: question or prompt, empty where the row has none.
        truth: what the data say, likewise.
        said: generation by model.
    """

    name: str
    asked: str
    truth: str
    said: dict[str, str]


def read_examples(folder: Path) -> list[Row]:
    """Read the rows of a run.

    Raises:
        UserError: the file is absent, or a line is not such a row.
    """
    file = folder / results.EXAMPLES_FILE
    rows = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
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


def samples(run: Run) -> list[Sample]:
    """Return the first generated texts of forget and retain set under every model of a run.

    Raises:
        UserError: see `read_examples`.
    """
    by_text: dict[tuple[str, Any], dict[str, Row]] = {}
    for row in read_examples(run.folder):
        if row["set"] in SHOWN and "generation" in row:
            by_text.setdefault((row["set"], row["row"]), {})[row["model"]] = row
    found = []
    for name, count in SHOWN.items():
        of_set = [item for item in by_text.items() if item[0][0] == name]
        for (_, number), models in of_set[:count]:
            some = models.get("target") or next(iter(models.values()))
            found.append(
                Sample(
                    name=f"{name} {number}" + (f", {some['group']}" if some.get("group") else ""),
                    asked=_cut(some.get("question") or some.get("prompt") or ""),
                    truth=_cut(some.get("reference") or ""),
                    said={r: _cut(models[r]["generation"]) for r in ROLES if r in models},
                )
            )
    return found


def _cut(text: Any) -> str:
    shown = " ".join(str(text).split())
    return shown if len(shown) <= WIDTH else shown[:WIDTH] + "…"
