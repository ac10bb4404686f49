"""What runs must share to stand in one table, and the headline that tells such groups apart."""

import json
from typing import Any

from loku_exp.report.collect import Run
from loku_exp.report.measures import kind_of

OF_UNIT = {"forget_split", "retain_split", "data_digest", "seeds", "retain_rows"}
OF_METHOD = {"updates", "examples_per_update", "reduction", "micro_batch_size"}
ROWS_OF_UNIT = {
    "sibling",
    "retain",
    "unseen",
    "wikitext",
}  # TDEC: what overlap leaves, by forget set


def shared(run: Run) -> dict[str, Any]:
    """Return everything in which the runs of a group are equal."""
    record = run.record
    extraction = kind_of(record) == "extraction"
    protocol = {k: v for k, v in record.protocol.items() if k not in OF_UNIT | OF_METHOD}
    rows = protocol.pop("rows", {})
    protocol["rows"] = {k: v for k, v in rows.items() if not (extraction and k in ROWS_OF_UNIT)}
    protocol["missing"] = sorted(protocol.get("missing") or [])
    choices = record.run.choices
    same = {"model": choices["model"], "dataset": choices["dataset"], "label": record.run.label}
    if not extraction:  # TOFU's forget sets are nested and of different size: no replicates
        same["forget set"] = record.protocol.get("forget_split")
    same |= {"schema": record.schema_version, "format of numbers": record.run.format}
    weights = {role: record.models[role].weights for role in record.models}
    return same | {"toy": record.run.toy, "weights": weights} | protocol


def by_data(members: list[Run]) -> list[list[Run]]:
    """Part runs whose data differ under the same name of a forget set."""
    digests: dict[Any, set[Any]] = {}
    for run in members:
        protocol = run.record.protocol
        digests.setdefault(protocol.get("forget_split"), set()).add(protocol.get("data_digest"))
    if all(len(found) == 1 for found in digests.values()):
        return [members]
    parts: dict[Any, list[Run]] = {}
    for run in members:
        parts.setdefault(run.record.protocol.get("data_digest"), []).append(run)
    return list(parts.values())


def headlines(parts: list[list[Run]]) -> list[str]:
    """Return a headline per part; equal ones are told apart by what they do not share."""
    entries = [_flat(shared(part[0])) for part in parts]
    plain = [_plain(part[0]) for part in parts]
    texts = []
    for position, text in enumerate(plain):
        twins = [entries[i] for i, other in enumerate(plain) if other == text]
        keys = sorted({key for twin in twins for key in twin})
        apart = [key for key in keys if len({text_of(twin.get(key)) for twin in twins}) > 1]
        extras = [f"{key}: {_shown(entries[position].get(key))}" for key in apart]
        if len(twins) > 1 and not extras:  # they differ in their data
            extras = [f"data {parts[position][0].record.protocol.get('data_digest')}"]
        texts.append(" · ".join([text, *extras]))
    return texts


def _plain(run: Run) -> str:
    record, choices = run.record, run.record.run.choices
    text = f"{choices['model']} on {choices['dataset']}"
    if kind_of(record) != "extraction" and record.protocol.get("forget_split"):
        text += f", {record.protocol['forget_split']}"
    return " · ".join([text, *([record.run.label] if record.run.label else [])])


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{key} of {inner}": found for inner, found in value.items()}
        else:
            flat[key] = value
    return flat


def text_of(content: Any) -> str:
    """Return plain data as text that is equal where they are equal."""
    return json.dumps(content, sort_keys=True, default=str)


def _shown(value: Any) -> str:
    return "not recorded" if value is None else str(value)
