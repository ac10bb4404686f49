"""The files of a finished run: its record, a table for people, one row per evaluated example."""

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from loku_exp.errors import UserError
from loku_exp.results.examples import EXAMPLES_FILE, before_and_after, lines_of, no_constant
from loku_exp.results.schema import SCHEMA, Record
from loku_exp.results.table import header_and_rows, notes, title
from loku_exp.runtime.finished import check_all_unchanged, check_unchanged, is_done, read_mark
from loku_exp.runtime.whole_files import write_text

if TYPE_CHECKING:  # a record is read without torch
    from loku_exp.evaluation.suite import Evaluation

log = logging.getLogger(__name__)
METRICS_FILE, TABLE_FILE = "metrics.json", "results.md"


def write(folder: Path, record: Record, evaluations: dict[str, "Evaluation"]) -> None:
    """Write examples, table and last the record into a run's folder, each file whole.

    Raises:
        UserError: a metric is no finite number.
    """
    if place := _not_finite(record.model_dump(include={"models", "curve"})):
        raise UserError(
            f"{folder / METRICS_FILE}: {place[1:]} is no finite number; leave it out instead"
        )
    examples = [
        {"model": name, **row} for name in record.models for row in evaluations[name].examples
    ]
    content = record.model_dump(mode="json")
    content = {"schema": content.pop("schema_version"), **content}
    if place := _not_finite(content):
        raise UserError(
            f"{folder / METRICS_FILE}: {place[1:]} is no finite number; leave it out instead"
        )
    write_text(folder / EXAMPLES_FILE, lines_of(examples))
    write_text(folder / TABLE_FILE, markdown(record, examples))
    write_record(folder, content)


def write_record(folder: Path, content: dict[str, Any]) -> None:
    """Write what `metrics.json` holds, whole."""
    write_text(folder / METRICS_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(folder: Path) -> Record:
    """Read the record of a finished run.

    Raises:
        UserError: it is absent, of another schema, not what its run wrote, or not such a file.
    """
    file = folder / METRICS_FILE
    check_unchanged(file, folder)
    again = "run its command again with force=true"
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=no_constant)
        schema = content.pop("schema")
        if place := _not_finite(content):
            raise ValueError(f"{place[1:]} is no finite number")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); {again}") from error
    if schema != SCHEMA:
        writer = "an earlier" if isinstance(schema, int) and schema < SCHEMA else "a later"
        raise UserError(
            f"{file} has schema {schema}, written by {writer} version; this one reads schema {SCHEMA}. "
            f"To have it, {again}"
        )
    try:
        return Record.model_validate({"schema_version": schema, **content})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{file} is damaged ({place}: {first['msg']}); {again}") from error


def has_everything(folder: Path, attacks: list[str]) -> bool:
    """Return whether a run is finished, with these attacks, and its files are as they were written.

    What was ended while something was added to it is not.
    """
    if not is_done(folder):
        return False
    try:
        if read_mark(folder)["open"]:
            return False
        check_all_unchanged(folder)
    except UserError as error:
        log.warning("%s", error)
        return False
    models = read(folder).models if attacks else {}
    return all(f"target+{attack}" in models for attack in attacks)


def markdown(record: Record, examples: list[dict[str, Any]]) -> str:
    """Return the table, its notes and some continuations as Markdown."""
    header, rows = header_and_rows(record)
    lines = [f"# {title(record)}", "", _markdown_row(header)]
    lines.append("|---" + "|---:" * (len(header) - 1) + "|")
    lines += map(_markdown_row, rows)
    lines += ["", *(f"{line}  " for line in notes(record))]
    shown = before_and_after(examples)
    text = "\n".join([*lines, *(["", "```", *shown, "```"] if shown else [])]) + "\n"
    return text.encode("utf-8", "backslashreplace").decode(
        "utf-8"
    )  # names may hold lone surrogates


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _not_finite(value: Any) -> str | None:
    """Return where a value that is no finite number stands, or None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    if not isinstance(value, dict | list):
        return None
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = ((key, _not_finite(inner)) for key, inner in items)
    return next((f".{key}{place}" for key, place in found if place is not None), None)
