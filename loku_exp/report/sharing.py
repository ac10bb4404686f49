"""What runs must share to stand in one table, and the headline that tells such groups apart."""

import json
from collections.abc import Set
from typing import Any

from loku_exp.report.collect import Run

OF_UNIT = {"forget_split", "data_digest", "seeds", "retain_rows"}
OF_METHOD = {
    "updates",
    "examples_per_update",
    "reduction",
    "micro_batch_size",
    "bucket",
    "corruption",
    "control",
}
BASES = ("target", "reference")


def parted(runs: list[Run]) -> list[list[Run]]:
    """Part runs into those that are equal in everything that is no method's, unit's or seed's own."""
    parts: dict[str, list[Run]] = {}
    for run in runs:
        parts.setdefault(text_of(shared(run, _of_methods(runs, run))), []).append(run)
    return [part for members in parts.values() for part in _by_data(members)]


def shared(run: Run, of_methods: Set[str] = frozenset()) -> dict[str, Any]:
    """Return everything in which the runs of a group are equal.

    Forget sets of one number of rows may stand for each other; of other sets the rows that a forget set
    leaves may differ with it.

    Args:
        run: one of them.
        of_methods: entries of the protocol that only some methods make.
    """
    record, choices = run.record, run.record.run.choices
    left_out = OF_UNIT | OF_METHOD | of_methods
    protocol = {k: v for k, v in record.protocol.items() if k not in left_out}
    protocol["rows"] = {"forget": record.protocol.get("rows", {}).get("forget")}
    protocol["missing"] = sorted(protocol.get("missing") or [])
    weights = {role: record.models[role].weights for role in BASES if role in record.models}
    return {
        "model": choices["model"],
        "dataset": choices["dataset"],
        "label": record.run.label,
        "toy": record.run.toy,
        "format of numbers": record.run.format,
        "weights": weights,
    } | protocol


def headlines(parts: list[list[Run]]) -> list[str]:
    """Return a headline per part; equal ones are told apart by what they do not share."""
    entries = [_flat(shared(part[0])) for part in parts]
    plain = [_plain(part) for part in parts]
    texts = []
    for position, text in enumerate(plain):
        twins = [entries[i] for i, other in enumerate(plain) if other == text]
        keys = sorted({key for twin in twins for key in twin})
        apart = [key for key in keys if len({text_of(twin.get(key)) for twin in twins}) > 1]
        own = entries[position]
        extras = [f"{key}: {own[key]}" for key in apart if own.get(key) is not None]
        if len(twins) > 1 and not apart:  # they differ in their data
            extras = [f"data {parts[position][0].record.protocol.get('data_digest')}"]
        texts.append(" · ".join([text, *extras]))
    return texts


def text_of(content: Any) -> str:
    """Return plain data as text that is equal where they are equal."""
    return json.dumps(content, sort_keys=True, default=str)


def _of_methods(runs: list[Run], run: Run) -> set[str]:
    """Return the entries of the protocol that some methods make on a run's model and data, others never."""
    keys: dict[Any, set[str]] = {}
    for other in runs:
        if all(other.keys.get(key) == run.keys.get(key) for key in ("model", "dataset")):
            keys.setdefault(other.keys.get("method"), set()).update(other.record.protocol)
    found = list(keys.values())
    return set[str]().union(*found) - found[0].intersection(*found)


def _by_data(members: list[Run]) -> list[list[Run]]:
    """Part runs whose data or rows differ under the same name of a forget set."""

    def data(run: Run) -> str:
        protocol = run.record.protocol
        return text_of([protocol.get("data_digest"), protocol.get("rows")])

    found: dict[Any, set[str]] = {}
    for run in members:
        found.setdefault(run.keys["forget_split"], set()).add(data(run))
    if all(len(those) == 1 for those in found.values()):
        return [members]
    parts: dict[str, list[Run]] = {}
    for run in members:
        parts.setdefault(data(run), []).append(run)
    return list(parts.values())


def _plain(part: list[Run]) -> str:
    record, choices = part[0].record, part[0].record.run.choices
    text = f"{choices['model']} on {choices['dataset']}"
    splits = {run.keys["forget_split"] for run in part} - {None}
    text += f", {splits.pop()}" if len(splits) == 1 else ""
    return " · ".join([text, *([record.run.label] if record.run.label else [])])


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{key} of {inner}": found for inner, found in value.items()}
        else:
            flat[key] = value
    return flat
