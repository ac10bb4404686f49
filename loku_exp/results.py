"""The files of a finished run: its record, a table for people, one row per evaluated example."""

import json
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from loku_exp.cache import write_text
from loku_exp.errors import UserError
from loku_exp.evaluation.harness import Evaluation
from loku_exp.record import Record
from loku_exp.verdict import cautions

METRICS_FILE, EXAMPLES_FILE, TABLE_FILE = "metrics.json", "examples.jsonl", "results.md"
ROLES = ("target", "unlearned", "reference")
SETS = {
    "forget": "forget set",
    "retain": "retain set",
    "authors": "real authors",
    "facts": "world facts",
}
PER_SET = {"prob": "probability", "rouge": "ROUGE-L recall", "truth_ratio": "truth ratio"}
COMPARED = {
    "forget_quality": "forget quality p",
    "forget_ks": "KS distance",
    "forget_shift": "shift of log ratio",
}
UTILITY = {"model_utility": "model utility", "model_utility_retain": "  its retain third"}


def write(folder: Path, record: Record, evaluations: dict[str, Evaluation]) -> None:
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
    write_text(folder / TABLE_FILE, markdown(record))
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
    """Print the table of a run and where its files are."""
    console = Console()
    console.print(_table(record))
    for line in _notes(record):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"files: {folder}", highlight=False, soft_wrap=True)


def markdown(record: Record) -> str:
    """Return the table and its notes as Markdown."""
    header, rows = _rows(record)
    lines = [f"# {title(record)}", "", "| " + " | ".join(header) + " |"]
    lines.append("|---" + "|---:" * (len(header) - 1) + "|")
    lines += ["| " + " | ".join(cell.strip() for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"{line}  " for line in _notes(record))]) + "\n"


def title(record: Record) -> str:
    """Return what the run is, with its label where it is toy, from scratch or random."""
    choices = record.run.choices
    parts = [f"{choices['model']} on {choices['dataset']}"]
    if "loss" in choices:
        parts.append(f"loss {choices['loss']}")
        rank = choices.get("lora.rank")
        parts.append(f"init {choices['init']}, rank {rank}" if rank else "all weights trained")
    if record.run.label:
        parts.append(record.run.label)
    return " · ".join(parts)


def _table(record: Record) -> Table:
    header, rows = _rows(record)
    table = Table(title=title(record), title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table


def _rows(record: Record) -> tuple[list[str], list[list[str]]]:
    """Return header and rows; the last column points from the unlearned value to the reference's."""
    present = [role for role in ROLES if role in record.models]
    values = {role: record.models[role].metrics for role in present}
    compares = {"unlearned", "reference"} <= values.keys()
    header = ["", *present, *(["to the reference"] if compares else [])]
    rows = []
    names = {
        f"{name}_{metric}": f"{title}, {label}"
        for name, title in SETS.items()
        for metric, label in PER_SET.items()
    }
    names = names | COMPARED | UTILITY
    shown = {name for metrics in values.values() for name in metrics}
    names |= {name: name for name in sorted(shown) if name not in names}
    for name, label in names.items():
        if name not in shown:
            continue
        row = [label, *(_number(name, values[role].get(name)) for role in present)]
        if compares:
            row.append("" if name in COMPARED else _arrow(values, name))
        rows.append(row)
    return header, rows


def _arrow(values: dict[str, dict[str, float]], name: str) -> str:
    """Return which way, and how far, the unlearned value is from the reference's."""
    ours, theirs = values["unlearned"].get(name), values["reference"].get(name)
    if ours is None or theirs is None:
        return ""
    gap = theirs - ours
    return "=" if abs(gap) < 0.005 else f"{'↑' if gap > 0 else '↓'} {abs(gap):.2f}"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "forget_quality":
        return f"{value:.2g}"
    return f"{value:+.2f}" if name == "forget_shift" else f"{value:.3f}"


def _notes(record: Record) -> list[str]:
    protocol = record.protocol
    notes = [f"verdict: {record.verdict}"] if record.verdict else []
    counts = ", ".join(f"{name} {count}" for name, count in protocol["rows"].items())
    described = [f"rows evaluated: {counts}", f"truth ratio {protocol['truth_ratio']}"]
    if protocol.get("updates"):
        forget, retain = protocol["examples_per_update"]
        described.append(
            f"{protocol['updates']} updates of {forget} forget + {retain} retain examples"
        )
    notes.append("protocol: " + "; ".join(described))
    if record.init:
        notes.append(
            f"init: {record.init['name']} put {record.init['share_of_weight_norm']:.1%} of the adapted "
            "weights' norm into the adapter"
        )
    rows = protocol["rows"].get("forget", 0)
    return notes + [f"note: {text}" for text in cautions(rows, protocol | (record.init or {}))]
