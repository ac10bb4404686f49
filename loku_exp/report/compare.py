"""Two runs in pairs: differences over the same evaluated rows, with block-bootstrap intervals."""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from loku_exp.errors import UserError
from loku_exp.evaluation.catalogue import Metric, by_name
from loku_exp.report.estimates import FEW_BLOCKS, block_bootstrap
from loku_exp.report.groups import method_of
from loku_exp.report.pairing import PART, Pairs, finished_record, paired_rows
from loku_exp.results.examples import Row
from loku_exp.results.schema import Record
from loku_exp.results.terminal import console
from loku_exp.runtime.whole_files import write_text

IDENTITY = ("model", "set", "row", "group", "tokens", "gold", "chosen")
UNIT = (
    "The intervals are over evaluated rows, in blocks, of this one pair of runs. They do not say whether "
    "the difference holds on another base model, forget set or seed: that takes several runs of each, and "
    "the report over all of them."
)


@dataclass(frozen=True)
class Comparison:
    """Two runs in pairs.

    Attributes:
        a: run id, label and folder of the first.
        b: of the second.
        model: which model of them.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        differences: B - A per ``set`` and ``metric`` of `examples.jsonl` (``per_token`` is exp(-loss)):
            ``label``, means ``a`` and ``b``, ``difference``, its 95 % interval ``low`` to ``high`` (None
            with one block), pairs of ``rows``, and ``blocks`` (authors, documents) that were resampled.
        notes: what a reader must know.
    """

    a: dict[str, Any]
    b: dict[str, Any]
    model: str
    resamples: int
    seed: int
    differences: list[dict[str, Any]]
    notes: list[str]


def compare(
    first: Path,
    second: Path,
    *,
    model: str = "unlearned",
    block: str = "auto",
    resamples: int = 10000,
    seed: int = 0,
) -> Comparison:
    """Compare the rows of two finished runs.

    Args:
        first: folder of run A.
        second: folder of run B.
        model: which model of both.
        block: ``group`` (author), ``row`` (each text a document of its own), or ``auto``: what the
            suite's catalogue says varies independently.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UserError: a run is not finished or damaged, the two are one or of other data or scoring, or one has
            no such model.
    """
    by_set = paired_rows((first, second), model)
    records = [finished_record(folder) for folder in (first, second)]
    if first.resolve() == second.resolve():
        raise UserError(f"{first}: compared with itself nothing differs; give two runs")
    notes = [UNIT, *_notes(*records)]
    words = by_name(records[0].catalogue)
    differences: list[dict[str, Any]] = []
    for name, pairs in by_set.items():
        unit = _unit_of(name, pairs, words) if block == "auto" else block
        blocks, note = _blocks(pairs, unit, name)
        notes += [note] if note else []
        notes += _lacking(pairs, name)
        for metric in _quantities(pairs):
            a, b = (np.array([_value(pair[side], metric) for pair in pairs]) for side in (0, 1))
            found = block_bootstrap(b - a, blocks, resamples=resamples, seed=seed)
            differences.append(
                {"set": name, "metric": metric, "label": _label(name, metric, words)}
                | {"a": float(a.mean()), "b": float(b.mean()), "difference": found.value}
                | {"low": found.low, "high": found.high, "rows": len(pairs), "blocks": found.n}
            )
    if not differences:
        raise UserError(f"{first} and {second} share no quantity per row of {model}")
    one, two = (_identity(r, f) for r, f in zip(records, (first, second), strict=True))
    return Comparison(one, two, model, resamples, seed, differences, list(dict.fromkeys(notes)))


def show_comparison(comparison: Comparison) -> None:
    """Print a comparison as a table."""
    place = console()
    table = Table(title=f"{comparison.model}: B - A", title_justify="left", box=box.SIMPLE_HEAD,
                  pad_edge=False, collapse_padding=True)  # fmt: skip
    for name in ("", "A", "B", "B - A", "95 %", "rows/blocks"):
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name))
    for row in comparison.differences:
        values = [f"{row['a']:.3f}", f"{row['b']:.3f}", f"{row['difference']:+.3f}"]
        ends = "none" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        table.add_row(row["label"], *values, ends, f"{row['rows']}/{row['blocks']}")
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        place.print(f"{letter}: {run['label']} ({run['id']})", soft_wrap=True)
    place.print(table)
    for note in comparison.notes:
        place.print(f"note: {note}", soft_wrap=True)


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write a comparison as JSON and CSV; return the files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to {folder}: it cannot be made ({error.strerror})") from error
    stem = f"compare-{comparison.a['id']}-{comparison.b['id']}-{comparison.model}"
    files = [folder / f"{stem}.json", folder / f"{stem}.csv"]
    write_text(files[0], json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n")
    write_text(files[1], pd.DataFrame(comparison.differences).to_csv(index=False))
    return files


def _unit_of(name: str, pairs: Pairs, words: dict[str, Metric]) -> str:
    """Return what varies independently in a set; the suite says it of the set's means, else of others."""
    bare = name.partition(PART)[0]
    own = {w.unit for m, w in words.items() if m.startswith(f"{bare}_")} - {"all"}
    grouped = all("group" in row for row, _ in pairs)
    units = own or ({w.unit for w in words.values()} if grouped else set())
    return "group" if "group" in units else "row"


def _blocks(pairs: Pairs, block: str, name: str) -> tuple[list[Any], str | None]:
    """Return the block of each pair, and what to say of them."""
    groups = [a.get("group") for a, _ in pairs]
    if block == "row":
        return [a["row"] for a, _ in pairs], "blocks are single rows where each is a document"
    if None in groups:
        raise UserError(f"--block group: the rows of {name} have no group; use --block row")
    count = len(set(groups))
    if count == 1:
        alone = f"{name}: all rows are of one group, so there is no interval; try --block row"
        return groups, alone
    few = f"{name}: only {count} blocks; intervals over so few tend to be too narrow"
    return groups, few if count < FEW_BLOCKS else None


def _quantities(pairs: Pairs) -> list[str]:
    """Return the quantities that every row of both runs has, and exp(-loss) where no row says it."""
    rows = [row for pair in pairs for row in pair]
    names = [name for name in rows[0] if name not in IDENTITY]
    names = [name for name in names if all(_is_number(row.get(name)) for row in rows)]
    by_loss = "loss" in names and not all(_says_probability(row) for row in rows)
    return [*names, *(["per_token"] if by_loss else [])]


def _lacking(pairs: Pairs, name: str) -> list[str]:
    """Return which quantities are not compared, since some rows lack them."""
    rows = [row for pair in pairs for row in pair]
    having = Counter(key for row in rows for key, value in row.items() if _is_number(value))
    few = [key for key in having if key not in IDENTITY and having[key] < len(rows)]
    return [
        f"{name}, {key}: not compared, {len(rows) - having[key]} of {len(rows)} rows lack it"
        for key in few
    ]


def _says_probability(row: Row) -> bool:
    """Return whether a row's probability is that of its tokens, not its share among answers."""
    return "prob" in row and math.isclose(row["prob"], math.exp(-row["loss"]), rel_tol=1e-9)


def _value(row: Row, metric: str) -> float:
    return math.exp(-row["loss"]) if metric == "per_token" else float(row[metric])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _identity(record: Record, folder: Path) -> dict[str, Any]:
    choices = record.run.choices
    parts = [f"{choices['model']} on {choices['dataset']}"]
    if record.unlearned:
        parts.append(method_of(choices))
        parts += [f"rank {choices['lora.rank']}"] if choices.get("lora.rank") else []
    parts += [f"seed {record.run.seed}", *([record.run.label] if record.run.label else [])]
    seeds = record.protocol.get("seeds")
    return {"id": record.run.id, "label": ", ".join(parts), "folder": str(folder), "seeds": seeds}


def _notes(a: Record, b: Record) -> list[str]:
    notes = []
    if a.run.id == b.run.id:
        notes.append("both folders are of the same configuration")
    if a.run.toy or b.run.toy:
        notes.append("TOY data or model: says nothing about these methods on a pretrained model")
    if a.run.format != b.run.format:
        notes.append(f"formats of numbers differ: {a.run.format} and {b.run.format}")
    for key in ("target", "reference"):
        seeds = [record.protocol.get("seeds", {}).get(key) for record in (a, b)]
        if seeds[0] != seeds[1]:
            notes.append(f"{key} seeds differ ({seeds[0]} and {seeds[1]}): not the method alone")
    return notes


def _label(name: str, quantity: str, words: dict[str, Metric]) -> str:
    """Return the suite's label of a mean over rows of a set, else one made of their names."""
    metric = words.get(f"{name}_{quantity}")
    if metric is not None and metric.unit != "all":
        return metric.label
    bare, part, of_part = name.partition(PART)
    of_set = next(
        (w.label.partition(",")[0] for m, w in words.items() if m.startswith(f"{bare}_")), bare
    )
    of_set += part + of_part
    spelled = {"per_token": "probability per token"}.get(quantity, quantity.replace("_", " "))
    return f"{of_set}, {spelled}"
