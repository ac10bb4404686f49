"""Registered claims, judged by the records of finished runs; the rules stand in the file of claims.

Two arms are compared unit by unit, a unit being one base seed and forget set. Runs of both that share unit,
unlearning seed, and whatever of rank, layers and rate the claim leaves free, are a pair.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from loku_exp.claims.registered import Arm, Claim, Claims
from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, at_level, mean_over_units
from loku_exp.report.matched import curve_of
from loku_exp.report.units import Unit, unit_of

RATE = "training.learning_rate"
PAIRED = ("lora.rank", "lora.targets", "training.recipe")
OF_RUN = ("collapsed", "updates", "init_share_of_retraining")
KNOWN = "forget_prob"  # what a level is of
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Verdict:
    """What runs say of a claim.

    Attributes:
        claim: which.
        says: ``yes``, ``no``, ``undecided`` or ``no runs``.
        why: of the last two.
        estimate: of the difference (or of a's value, where there is no b), over units.
        least: the smallest difference that could have been called.
        pairs: number of differences averaged.
        missed: runs that never came down to the level, or lack the quantity.
    """

    claim: Claim
    says: str
    why: str = ""
    estimate: Estimate | None = None
    least: float | None = None
    pairs: int = 0
    missed: int = 0


@dataclass
class Judged:
    """All verdicts, and which runs were left out, with the reason."""

    verdicts: list[Verdict]
    runs: int
    left_out: dict[str, str] = field(default_factory=dict)


def judge_claims(claims: Claims, runs: Iterable[Run]) -> Judged:
    """Judge every claim by the runs that are of its protocol and may be compared with each other.

    Args:
        claims: with their rules.
        runs: finished ones; what does not belong is left out by name.
    """
    kept, left_out = _comparable(claims, list(runs))
    verdicts = [_judge(claim, claims.level, kept) for claim in claims.claims]
    return Judged(verdicts, len(kept), left_out)


def _comparable(claims: Claims, runs: list[Run]) -> tuple[list[Run], dict[str, str]]:
    """Return the runs of the protocol, and why others are not among them.

    Of several formats, data or rows the most frequent is taken.
    """
    left_out, found = {}, []
    for run in runs:
        of_run = run.config | run.keys
        other = [f"{k}={of_run.get(k)}" for k, v in claims.protocol.items() if of_run.get(k) != v]
        if not run.record.unlearned:
            other = ["it only evaluates"]
        if other:
            left_out[str(run.folder)] = ", ".join(other)
        else:
            found.append(run)
    kinds = {str(run.folder): _kind(run) for run in found}
    usual = Counter(kinds.values()).most_common(1)
    for run in found:
        if kinds[str(run.folder)] != usual[0][0]:
            left_out[str(run.folder)] = "other data, rows or format than most"
    return [run for run in found if str(run.folder) not in left_out], left_out


def _kind(run: Run) -> Key:
    protocol = run.record.protocol
    rows = tuple(sorted(protocol.get("rows", {}).items()))
    return run.record.run.format, rows, str(protocol.get("authors")), str(protocol.get("scoring"))


def _judge(claim: Claim, level: float, runs: list[Run]) -> Verdict:
    values, missed = _values(claim, claim.a, level, runs)
    if claim.b is None:
        pairs = [(key[0], value) for key, value in values.items()]
    elif "subject" in claim.b:
        before, lost = _values(claim, claim.a, level, runs, str(claim.b["subject"]))
        pairs, missed = _differences(values, before), missed + lost
    else:
        others, lost = _values(claim, claim.b, level, runs)
        pairs, missed = _differences(values, others), missed + lost
    estimate = mean_over_units(pairs)
    if estimate is None:
        return Verdict(claim, "no runs", "no pair of runs to compare", missed=missed)
    counts: dict[str, Any] = {"estimate": estimate, "pairs": len(pairs), "missed": missed}
    if estimate.low is None or estimate.high is None:
        return Verdict(claim, "undecided", "one unit, no interval", **counts)
    says = verdict_of(claim.side, claim.margin, estimate.low, estimate.high)
    least = (estimate.high - estimate.low) / 2 + abs(claim.margin)
    return Verdict(claim, says, "" if says != "undecided" else "the interval holds the margin",
                   least=least, **counts)  # fmt: skip


def verdict_of(side: str, margin: float, low: float, high: float) -> str:
    """Return what an interval says of a claim.

    Args:
        side: on which side of the margin the claim has the value: above, below, or within +- margin.
        margin: of the claim.
        low: lower end of the interval.
        high: upper end.
    """
    if side == "within":
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
    elif side == "above":
        inside, outside = low > margin, high < margin
    else:
        inside, outside = high < margin, low > margin
    return "yes" if inside else "no" if outside else "undecided"


def _differences(ours: dict[Key, float], theirs: dict[Key, float]) -> list[tuple[Unit, float]]:
    return [(key[0], ours[key] - theirs[key]) for key in ours if key in theirs]


def _values(
    claim: Claim, arm: Arm, level: float, runs: list[Run], subject: str = "unlearned"
) -> tuple[dict[Key, float], int]:
    """Return an arm's value by what pairs it, runs of one key averaged, and how many runs have none."""
    named = {*claim.a, *(claim.b or {})}
    free = [name for name in PAIRED if name not in named]
    mine = [run for run in runs if all(_key(run, name) == value for name, value in arm.items())]
    if claim.best:
        mine = _at_best_rate(claim, level, mine)
    found: dict[Key, list[float]] = {}
    missed = 0
    for run in mine:
        value = _value(claim, level, run, subject, 1 if claim.best else None)
        if value is None or not math.isfinite(value):
            missed += 1
            continue
        key = (unit_of(run), run.record.run.seed, *(_key(run, name) for name in free))
        key += (_key(run, RATE),) if claim.same_rate else ()
        found.setdefault(key, []).append(value)
    return {key: fmean(values) for key, values in found.items()}, missed


def _at_best_rate(claim: Claim, level: float, runs: list[Run]) -> list[Run]:
    """Return of each unit the runs at its best rate, chosen on the selection half of the rows."""
    by_unit: dict[Unit, dict[Any, list[float]]] = {}
    for run in runs:
        value = _value(claim, level, run, "unlearned", 0)
        rates = by_unit.setdefault(unit_of(run), {})
        rates.setdefault(_key(run, RATE), []).append(-math.inf if value is None else value)
    lowest = claim.side == "below"
    best = {
        unit: max(rates, key=lambda rate: fmean(rates[rate]) * (-1 if lowest else 1))
        for unit, rates in by_unit.items()
    }
    return [run for run in runs if _key(run, RATE) == best[unit_of(run)]]


def _key(run: Run, name: str) -> Any:
    return run.keys[name] if name in run.keys else run.config.get(name)


def _value(claim: Claim, level: float, run: Run, subject: str, half: int | None) -> float | None:
    """Return the quantity of a run, where the claim reads it; of one half of the rows or of all."""
    record, name = run.record, claim.quantity
    if name == "collapsed":
        return float(run.collapsed)
    if name == "init_share_of_retraining":
        flops = record.cost.get("flops", {})
        spent = flops.get("fisher", 0) + flops.get("low_rank", 0)
        return spent / flops["retraining"] if flops.get("retraining") else None
    if claim.at == "end" or subject != "unlearned":
        model = record.models.get(subject)
        return model.metrics.get(name) if model else None
    path = []
    for step, metrics in curve_of(record, KNOWN):
        point = next(p for p in record.curve if p.step == step)
        values = metrics if half is None else (point.halves or [{}, {}])[half]
        value = float(step) if name == "updates" else values.get(name)
        if value is None or KNOWN not in values:
            return None
        path.append((values[KNOWN], value))
    return at_level(path, level)
