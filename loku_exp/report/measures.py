"""What is read off a run: how forgotten, at what cost, whether it succeeded or collapsed.

Two families of records: questions (TOFU's shape), judged against a retrained reference, and
extraction (TDEC's shape), judged against what a model has on text it never saw.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from loku_exp.results.schema import Record
from loku_exp.results.verdict import SIGNIFICANT

Kind = Literal["questions", "extraction", "other"]
Values = dict[str, float]
LEAST_QUALITY = 1e-300  # log10 of a p-value that underflowed
ABILITIES = (
    "reasoning",
    "reasoning_predecessor",
    "reasoning_local",
    "dialogue",
    "pile_ppl",
    "wikitext_ppl",
)
UTILITIES = {  # the first that all runs of a group have is their utility
    "questions": ("model_utility", "retain_prob"),
    "extraction": (*ABILITIES[:4], "sibling_ma", "retain_per_token"),
    "other": (),
}
LABELS = {
    "log10_forget_quality": "log10 forget quality",
    "forget_ks": "KS distance",
    "forget_shift": "shift",
    "model_utility": "model utility",
    "model_utility_retain": "its retain third",
    "forget_prob": "forget probability",
    "retain_prob": "retain probability",
    "authors_prob": "authors probability",
    "facts_prob": "facts probability",
    "forget_rouge": "forget ROUGE-L",
    "forget_ma": "forget MA",
    "sibling_ma": "siblings' MA",
    "retain_per_token": "retain probability per token",
    "reasoning": "reasoning",
    "reasoning_predecessor": "reasoning (predecessor's scoring)",
    "reasoning_local": "reasoning (local tasks)",
    "dialogue": "dialogue F1",
    "pile_ppl": "Pile perplexity",
    "wikitext_ppl": "WikiText perplexity",
    "epochs_to_forget": "epochs to forget",
    "above_threshold": "above thresholds",
}
SIGNED = {"forget_shift"}


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        success: extraction: its stop rule was met; questions: not distinguishable from the reference
            (p >= .05) and not collapsed; None where neither can be said.
        collapsed: the record's verdict says so.
    """

    success: bool | None
    collapsed: bool


def kind_of(record: Record) -> Kind:
    """Return which family a record belongs to."""
    metrics = record.models["target"].metrics
    if "forget_ma" in metrics:
        return "extraction"
    return "questions" if "forget_prob" in metrics else "other"


def outcome(record: Record) -> Outcome:
    """Return how a run ended."""
    collapsed = (record.verdict or "").startswith("COLLAPSED")
    metrics = record.models["unlearned"].metrics
    if kind_of(record) == "extraction":
        return Outcome(record.training.get("success"), collapsed)
    quality = metrics.get("forget_quality")
    success = None if quality is None else quality >= SIGNIFICANT and not collapsed
    return Outcome(success, collapsed)


def values(record: Record, metrics: Values) -> Values:
    """Return a model's metrics with what is derived from them; what cannot be had is absent.

    ``log10_forget_quality`` (p-values are averaged as logarithms), ``retain_per_token`` = exp(-loss),
    ``above_threshold`` = how far the farther of EL and MA is above its threshold, 0 below both,
    ``surplus`` = the gap that a Pareto front is drawn over: KS distance or ``above_threshold``.
    """
    found = dict(metrics)
    if "forget_quality" in metrics:
        found["log10_forget_quality"] = math.log10(max(metrics["forget_quality"], LEAST_QUALITY))
    if "retain_loss" in metrics:
        found["retain_per_token"] = math.exp(-metrics["retain_loss"])
    limits = record.training.get("thresholds")
    el = f"forget_el{limits['n']}" if limits else ""
    if limits and el in metrics and "forget_ma" in metrics:
        above = max(metrics["forget_ma"] - limits["ma"], metrics[el] - limits["el"])
        found["above_threshold"] = max(above, 0.0)
    return found


def final(record: Record, role: str = "unlearned") -> Values:
    """Return what a model of the final table has; empty where there is no such model."""
    if role not in record.models:
        return {}
    found = values(record, record.models[role].metrics)
    epochs = record.training.get("epochs_to_forget")
    return found | ({"epochs_to_forget": epochs} if role == "unlearned" and epochs else {})


def forgetting_of(records: list[Record]) -> str | None:
    """Return the gap that judges forgetting in all of these runs; smaller is closer, 0 is there."""
    for name in ("forget_ks", "above_threshold", "forget_prob", "forget_ma"):
        if all(name in final(record) for record in records):
            return name
    return None


def utility_of(records: list[Record]) -> str | None:
    """Return the utility that all of these runs have, target included.

    Model utility of a model trained from scratch is dominated by chance: its retain third then.
    """
    candidates = UTILITIES[kind_of(records[0])]
    if any("FROM SCRATCH" in record.run.label for record in records):
        candidates = ("model_utility_retain", *candidates)
    for name in candidates:
        if all(name in final(r) and name in final(r, "target") for r in records):
            return name
    return None


def shown(names: Iterable[str], kind: Kind) -> list[str]:
    """Return which of these measures a table of means shows, in order."""
    present = set(names)
    els = sorted(
        (name for name in present if re.fullmatch(r"forget_el\d+", name)), key=lambda n: int(n[9:])
    )
    questions = [
        "log10_forget_quality",
        "forget_ks",
        "forget_shift",
        "model_utility",
        "model_utility_retain",
        "forget_prob",
        "forget_rouge",
        "retain_prob",
    ]
    extraction = [*els, "forget_ma", "epochs_to_forget", "sibling_ma", "retain_per_token"]
    order = questions if kind == "questions" else [*extraction, *ABILITIES]
    return [name for name in order if name in present]


def label(name: str) -> str:
    """Return what a measure is called in tables and plots."""
    if match := re.fullmatch(r"forget_el(\d+)", name):
        return f"forget EL_{match[1]}"
    return LABELS.get(name, name.replace("_", " "))


def number(name: str, value: float | None) -> str:
    """Return a value as tables show it; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return ""
    if name in SIGNED:
        return f"{value:+.2f}"
    if name.endswith("_ppl"):
        return f"{value:.4g}"
    return (
        f"{value:.1f}" if name in ("epochs_to_forget", "log10_forget_quality") else f"{value:.3f}"
    )
