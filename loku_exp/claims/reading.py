"""What runs say of a claim's quantity: which runs count, what each of them has, and which are a pair."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from loku_exp.claims.registered import LITTLE_IS_GOOD, Arm, Claim, Claims
from loku_exp.report.collect import Run, newest_of
from loku_exp.report.estimates import at_level
from loku_exp.report.matched import curve_of
from loku_exp.report.sharing import shared, text_of
from loku_exp.report.units import Unit, unit_of

RATE = "training.learning_rate"
PAIRED = ("lora.rank", "lora.targets", "training.recipe")
KEPT = "utility_kept"
OF_RUN = (*LITTLE_IS_GOOD, KEPT)
KNOWN = "forget_prob"  # what a level is of
SUBJECT = "subject"  # of the other arm: the same runs, read at another model
LEAST_RATES = 2  # fewer are no choice
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Read:
    """What one arm has at one place.

    Attributes:
        value: of the quantity; None where its runs never come down to the level, or lack it.
        chosen_by: the same on the half of the rows that rates are chosen on.
    """

    value: float | None
    chosen_by: float | None


@dataclass
class Pairs:
    """The differences of a claim (or the values of its only arm), each with its unit.

    Attributes:
        values: unit and difference.
        missed: runs that never came down to the level, or lack the quantity.
        uneven: places where one arm had more learning rates than the other, or too few to choose from.
    """

    values: list[tuple[Unit, float]] = field(default_factory=list)
    missed: int = 0
    uneven: int = 0


def comparable(claims: Claims, runs: Iterable[Run]) -> tuple[list[Run], dict[str, str]]:
    """Return the runs of the protocol that may be compared, and why others are not among them.

    Of several formats, data, rows or recipes the most frequent one is taken; of one run that was repeated
    the newest.
    """
    left_out, found = dict[str, str](), []
    known = list(runs)
    newest = newest_of(known)
    for run in known:
        of_run = run.config | run.keys
        other = [f"{k}={of_run.get(k)}" for k, v in claims.protocol.items() if of_run.get(k) != v]
        if not run.record.unlearned:
            other = ["it only evaluates"]
        elif run not in newest:
            other = ["a newer run repeats it"]
        if other:
            left_out[str(run.folder)] = ", ".join(other)
        else:
            found.append(run)
    for kind in (_kind, _data):
        usual: dict[Any, Counter[str]] = {}
        for run in found:
            usual.setdefault(_set_of(run, kind), Counter())[kind(run)] += 1
        for run in list(found):
            if kind(run) != usual[_set_of(run, kind)].most_common(1)[0][0]:
                left_out[str(run.folder)] = "other data, rows, recipe or format than most"
                found.remove(run)
    return found, left_out


def pairs_of(claim: Claim, level: float, runs: list[Run]) -> Pairs:
    """Return the differences of a claim's arms, or the values of its only one.

    Both arms get the same number of learning rates: where one has more, they are compared at the rates
    that both have, and where each is to be at its best of two rates or more, not at all.

    Args:
        claim: which.
        level: of forgetting, at which quantities are read where the claim says so.
        runs: comparable ones.
    """
    of_target = claim.b is not None and SUBJECT in claim.b
    ours = _read_arm(claim, claim.a, level, runs)
    if claim.b is None:
        theirs = {key: dict[Any, Read]() for key in ours}
    elif of_target:
        theirs = _read_arm(claim, claim.a, level, runs, str(claim.b[SUBJECT]))
    else:
        theirs = _read_arm(claim, claim.b, level, runs)
    found = Pairs()
    for key in (key for key in ours if key in theirs):
        a, b = ours[key], theirs[key]
        uneven = claim.b is not None and len(a) != len(b)
        if claim.best and (uneven or len(a) < LEAST_RATES):
            found.uneven += 1
            continue
        found.uneven += uneven and not claim.same_rate
        at_each = claim.same_rate or of_target or uneven
        if at_each:
            a, b = ({r: read for r, read in arm.items() if r in a and r in b} for arm in (a, b))
        found.missed += sum(read.value is None for arm in (a, b) for read in arm.values())
        value = _difference(claim, a, b, at_each=at_each)
        if value is not None:
            found.values.append((key[0], value))
    return found


def has_quantity(claim: Claim, runs: list[Run]) -> bool:
    """Return whether any run has the quantity, reached or not."""
    if claim.quantity in OF_RUN:
        return True
    return any(claim.quantity in m.metrics for run in runs for m in run.record.models.values())


def unknown_choices(claim: Claim, runs: list[Run]) -> list[str]:
    """Return what the arms of a claim name that no run has, of whatever value."""
    known = {SUBJECT}.union(*(run.keys.keys() | run.config.keys() for run in runs))
    return [name for name in {**claim.a, **(claim.b or {})} if name not in known]


def _difference(
    claim: Claim, a: dict[Any, Read], b: dict[Any, Read], *, at_each: bool
) -> float | None:
    """Return a - b: at each rate and averaged, or each arm at its best rate, or averaged over its rates."""
    if at_each:
        both = [(read.value, b[rate].value) for rate, read in a.items()]
        apart = [mine - other for mine, other in both if mine is not None and other is not None]
        return fmean(apart) if apart else None
    mine, other = (_value_of_arm(claim, arm) for arm in (a, b))
    if claim.b is None:
        return mine
    return None if mine is None or other is None else mine - other


def _value_of_arm(claim: Claim, by_rate: dict[Any, Read]) -> float | None:
    """Return what an arm has over its rates; a rate that misses the level is never the best."""
    if claim.best:
        reached = [read for read in by_rate.values() if read.chosen_by is not None]
        little = claim.quantity in LITTLE_IS_GOOD or claim.quantity.endswith(("_ppl", "_loss"))
        choose = min if little else max
        return choose(reached, key=lambda read: read.chosen_by or 0.0).value if reached else None
    values = [read.value for read in by_rate.values() if read.value is not None]
    return fmean(values) if values else None


def _read_arm(
    claim: Claim, arm: Arm, level: float, runs: list[Run], subject: str = "unlearned"
) -> dict[Key, dict[Any, Read]]:
    """Return what an arm has, by what pairs it and by learning rate; runs of one place are averaged."""
    named = {*claim.a, *(claim.b or {})}
    free = [name for name in PAIRED if name not in named]
    found: dict[Key, dict[Any, list[Read]]] = {}
    for run in runs:
        if all(_key(run, name) == value for name, value in arm.items()):
            read = Read(
                _value(claim, level, run, subject, 1 if claim.best else None),
                _value(claim, level, run, subject, 0) if claim.best else None,
            )
            key = (unit_of(run), run.record.run.seed, *(_key(run, name) for name in free))
            found.setdefault(key, {}).setdefault(_key(run, RATE), []).append(read)
    return {
        key: {rate: _mean_of(reads) for rate, reads in by_rate.items()}
        for key, by_rate in found.items()
    }


def _mean_of(reads: list[Read]) -> Read:
    columns = ([r.value for r in reads], [r.chosen_by for r in reads])
    known = [[value for value in column if value is not None] for column in columns]
    return Read(*(fmean(values) if values else None for values in known))


def _key(run: Run, name: str) -> Any:
    return run.keys[name] if name in run.keys else run.config.get(name)


def _kind(run: Run) -> str:
    """Return what runs of any forget set must share to be compared here."""
    return text_of([shared(run), run.record.protocol.get("updates")])


def _data(run: Run) -> str:
    """Return what runs of one forget set must share too."""
    return text_of([run.record.protocol.get("data_digest"), run.record.protocol.get("rows")])


def _set_of(run: Run, kind: Any) -> Any:
    return run.keys["forget_split"] if kind is _data else None


def _value(claim: Claim, level: float, run: Run, subject: str, half: int | None) -> float | None:
    """Return the quantity of a run, where the claim reads it; of one half of the rows or of all."""
    record, name = run.record, claim.quantity
    if name == "collapsed":
        return float(run.collapsed)
    if name == "init_share_of_retraining":
        flops = record.cost.get("flops", {})
        spent = flops.get("fisher", 0) + flops.get("low_rank", 0)
        return spent / flops["retraining"] if flops.get("retraining") else None
    whole = 1.0
    if name == KEPT:
        name = record.judgement.utility or "" if record.judgement else ""
        whole = record.models["target"].metrics.get(name) or math.nan
    if claim.at == "end" or subject != "unlearned":
        model = record.models.get(subject)
        value = model.metrics.get(name) if model else None
    else:
        value = _at_level(run, name, level, half)
    return None if value is None or not math.isfinite(value / whole) else value / whole


def _at_level(run: Run, name: str, level: float, half: int | None) -> float | None:
    path = []
    for step, metrics in curve_of(run.record, KNOWN):
        point = next(p for p in run.record.curve if p.step == step)
        values = metrics if half is None else (point.halves or [{}, {}])[half]
        value = float(step) if name == "updates" else values.get(name)
        if value is None or KNOWN not in values:
            return None
        path.append((values[KNOWN], value))
    return at_level(path, level)
