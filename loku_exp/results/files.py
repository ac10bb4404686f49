"""The files of a finished run: its record, a table for people, one row per evaluated example."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from loku_exp.errors import UserError
from loku_exp.results.schema import Record
from loku_exp.results.table import header_and_rows, notes, title
from loku_exp.runtime.cache import write_text

if TYPE_CHECKING:  # a record is read without torch
    from loku_exp.evaluation.harness import Evaluation

METRICS_FILE, EXAMPLES_FILE, TABLE_FILE = "metrics.json", "examples.jsonl", "results.md"
DONE = "done.json"  # written last
SHOWN = 3  # texts of the forget set whose continuations are shown side by side
WIDTH = 220  # characters of a continuation that are shown


def write(folder: Path, record: Record, evaluations: dict[str, "Evaluation"]) -> None:
    """Write record, table and examples into a run's folder, each file whole."""
    examples = [
        {"model": role, **row}
        for role, evaluation in evaluations.items()
        for row in evaluation.examples
    ]
    content = record.model_dump(mode="json")
    content = {"schema": content.pop("schema_version"), **content}
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in examples)
    write_text(folder / EXAMPLES_FILE, lines)
    write_text(folder / TABLE_FILE, markdown(record, examples))
    write_text(folder / METRICS_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(folder: Path) -> Record:
    """Read the record of a finished run.

    Raises:
        UserError: it is absent, of another schema, or not such a file.
    """
    file = folder / METRICS_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Record.model_validate({"schema_version": content.pop("schema"), **content})
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, AttributeError, ValidationError) as error:
        raise UserError(
            f"{file} is not a record of schema 1 ({error}); delete its folder to run it again, or "
            "use force=true"
        ) from error


def show(record: Record, folder: Path) -> None:
    """Print the table of a run, some continuations where it has any, and where its files are."""
    console = Console()
    console.print(_table(record))
    for line in [*notes(record), *continuations(_examples(folder))]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(f"files: {folder}", highlight=False, soft_wrap=True)


def markdown(record: Record, examples: list[dict[str, Any]]) -> str:
    """Return the table, its notes and some continuations as Markdown."""
    header, rows = header_and_rows(record)
    lines = [f"# {title(record)}", "", "| " + " | ".join(header) + " |"]
    lines.append("|---" + "|---:" * (len(header) - 1) + "|")
    lines += ["| " + " | ".join(cell.strip() for cell in row) + " |" for row in rows]
    lines += ["", *(f"{line}  " for line in notes(record))]
    shown = continuations(examples)
    return "\n".join([*lines, *(["", "```", *shown, "```"] if shown else [])]) + "\n"


def continuations(examples: list[dict[str, Any]]) -> list[str]:
    """Return the first texts of the forget set with what target and unlearned model make of them."""
    by_row: dict[int, dict[str, dict[str, Any]]] = {}
    for example in examples:
        if example["set"] == "forget" and "prompt" in example:
            by_row.setdefault(example["row"], {})[example["model"]] = example
    lines = []
    for row, of_model in list(by_row.items())[:SHOWN]:
        if "target" in of_model and "unlearned" in of_model:
            target = of_model["target"]
            lines += [
                f"forget text {row} ({target['group']}), the last quarter after: {_end(target['prompt'])}",
                f"  text:   {_start(target['reference'])}",
                f"  before: {_start(target['generation'])}",
                f"  after:  {_start(of_model['unlearned']['generation'])}",
            ]
    return lines


def _start(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= WIDTH else shown[:WIDTH] + "…"


def _end(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= WIDTH // 2 else "…" + shown[-WIDTH // 2 :]


def _examples(folder: Path) -> list[dict[str, Any]]:
    file = folder / EXAMPLES_FILE
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _table(record: Record) -> Table:
    header, rows = header_and_rows(record)
    table = Table(title=title(record), title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table
