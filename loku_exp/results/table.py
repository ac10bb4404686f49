"""The result table of a run and the notes under it, for terminal and Markdown."""

import re
from typing import Any

from loku_exp.results.schema import Record
from loku_exp.results.verdict import cautions

ROLES = ("target", "unlearned", "reference")
SETS = {
    "forget": "forget set",
    "sibling": "siblings",
    "retain": "retain set",
    "unseen": "unseen text",
    "authors": "real authors",
    "facts": "world facts",
}
PER_SET = {
    r"el(\d+)": r"EL_\1",
    "ma": "MA",
    r"exact(\d+)": r"exact \1",
    "loss": "loss",
    "prob": "probability",
    "rouge": "ROUGE-L recall",
    "truth_ratio": "truth ratio",
}
COMPARED = {
    "forget_quality": "forget quality p",
    "forget_ks": "KS distance",
    "forget_shift": "shift of log ratio",
}
UTILITY = {
    "model_utility": "model utility",
    "model_utility_retain": "  its retain third",
    "reasoning": "reasoning (mean of nine)",
    "reasoning_predecessor": "reasoning (mean of nine, predecessor's scoring)",
    "reasoning_local": "reasoning (mean of local tasks)",
    "dialogue": "dialogue (mean F1 of four)",
}
NOT_SHOWN = re.compile(r"_(acc_norm|loss|perplexity)$")  # of tasks; metrics.json has them


def header_and_rows(record: Record) -> tuple[list[str], list[list[str]]]:
    """Return header and rows; the last column points from the unlearned value to the reference's."""
    present = [role for role in ROLES if role in record.models]
    values = {role: record.models[role].metrics for role in present}
    compares = {"unlearned", "reference"} <= values.keys()
    header = ["", *present, *(["to the reference"] if compares else [])]
    rows = []
    for name, label in labels({name for metrics in values.values() for name in metrics}).items():
        row = [label, *(number(name, values[role].get(name)) for role in present)]
        if compares:
            row.append("" if name in COMPARED else _arrow(values, name))
        rows.append(row)
    return header, rows


def labels(names: set[str]) -> dict[str, str]:
    """Return labels of the metrics to show, in the order of the table."""
    found = {}
    for key, title in SETS.items():
        for pattern, label in PER_SET.items():
            matches = {name: re.fullmatch(f"{key}_{pattern}", name) for name in names}
            for name in sorted(name for name, match in matches.items() if match):
                found[name] = f"{title}, {re.sub(f'{key}_{pattern}', label, name)}"
    known = COMPARED | UTILITY
    found |= {name: label for name, label in known.items() if name in names}
    others = sorted(name for name in names - found.keys() if not NOT_SHOWN.search(name))
    return found | {name: _task_label(name) for name in others}


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


def notes(record: Record) -> list[str]:
    """Return what stands under the table: verdict, stop rule, protocol, init, cautions."""
    protocol = record.protocol
    lines = [f"verdict: {record.verdict}"] if record.verdict else []
    if "thresholds" in record.training:
        lines.append("stop rule: " + _stop_rule(record))
    lines.append("protocol: " + "; ".join(_protocol(protocol)))
    if record.init:
        lines.append(
            f"init: {record.init['name']} put {record.init['share_of_weight_norm']:.1%} of the adapted "
            "weights' norm into the adapter"
        )
    rows = protocol["rows"].get("forget", 0) if "truth_ratio" in protocol else 0
    return lines + [f"note: {text}" for text in cautions(rows, protocol | (record.init or {}))]


def _protocol(protocol: dict[str, Any]) -> list[str]:
    counts = ", ".join(
        f"{name} {count}" for name, count in protocol["rows"].items() if name in SETS
    )
    parts = [f"rows evaluated: {counts}"]
    if "truth_ratio" in protocol:
        parts.append(f"truth ratio {protocol['truth_ratio']}")
    if "retain_corpus" in protocol:
        parts += [
            f"forget set {protocol['forget_split']} as {protocol['source']} of {protocol['length']} tokens",
            f"retain corpus {protocol['retain_corpus']}",
            f"end-of-text: {protocol['end_of_text']}",
            f"abilities: {protocol['ability']}",
        ]
    if protocol.get("updates"):
        forget, retain = protocol["examples_per_update"]
        parts.append(f"{protocol['updates']} updates of {forget} forget + {retain} retain examples")
    return parts


def _stop_rule(record: Record) -> str:
    training = record.training
    limits, n = training["thresholds"], training["thresholds"]["n"]
    source = f"measured on {limits['texts']} unseen texts" if limits["texts"] else "given"
    text = (
        f"EL_{n} < {limits['el']:.4f} (± {limits['el_error']:.4f}) and MA < {limits['ma']:.4f} "
        f"(± {limits['ma_error']:.4f}), {source}"
    )
    reference = record.models.get("reference")
    if reference and f"forget_el{n}" in reference.metrics:
        text += (
            f"; the reference has EL_{n} {reference.metrics[f'forget_el{n}']:.4f}, "
            f"MA {reference.metrics['forget_ma']:.4f}"
        )
    before = training.get("epoch_before")
    if before:
        values = ", ".join(f"{name} {value:.4f}" for name, value in before.items())
        text += f"; one epoch before: {values}"
    flips = training.get("flips_within_error")
    if flips is not None:
        text += f"; another outcome within the thresholds' error: {'yes' if flips else 'no'}"
    return text


def _task_label(name: str) -> str:
    return re.sub(r"_(acc|f1|ppl)$", lambda m: f", {_KINDS[m.group(1)]}", name)


_KINDS = {"acc": "accuracy", "f1": "F1", "ppl": "perplexity per token"}


def _arrow(values: dict[str, dict[str, float]], name: str) -> str:
    """Return which way, and how far, the unlearned value is from the reference's."""
    ours, theirs = values["unlearned"].get(name), values["reference"].get(name)
    if ours is None or theirs is None:
        return ""
    gap = theirs - ours
    size = number(name, abs(gap)) if name.endswith("_ppl") else f"{abs(gap):.2f}"
    return "=" if abs(gap) < 0.005 else f"{'↑' if gap > 0 else '↓'} {size}"


def number(name: str, value: float | None) -> str:
    """Return a metric's value as tables show it; nothing where it is absent."""
    if value is None:
        return ""
    if name == "forget_quality":
        return f"{value:.2g}"
    if name.endswith("_ppl"):
        return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
    return f"{value:+.2f}" if name == "forget_shift" else f"{value:.3f}"
