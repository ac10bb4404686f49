"""What an interval is over: base model, forget set, reference; and what must be said of some runs."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from loku_exp.report.collect import Run
from loku_exp.results.table import FOREIGN

UNIT_NAMES = ("base seed", "reference seed", "forget set")
SAME = 0.005  # metrics of one model may differ by this between machines


class Unit(NamedTuple):
    """What an interval is over."""

    base: Any
    reference: Any
    forget_set: Any


def unit_of(run: Run) -> Unit:
    """Return the unit of a run."""
    protocol = run.record.protocol
    seeds = protocol.get("seeds", {})
    return Unit(seeds.get("target"), seeds.get("reference"), protocol.get("forget_split"))


def unit_text(unit: Unit, units: Iterable[Unit]) -> str:
    """Return a unit in words: what of it differs among these; nothing where there is only one."""
    known = list(units)
    parts = [
        f"{name} {value}"
        for name, value, values in zip(UNIT_NAMES, unit, zip(*known, strict=True), strict=True)
        if len(set(values)) > 1
    ]
    return ", ".join(parts)


def common_units(arms: Iterable[list[Run]], succeeded: Callable[[Run], bool]) -> set[Unit]:
    """Return the units on which every arm ran and every one of its runs succeeded."""
    sets = []
    for runs in arms:
        good = {unit_of(run) for run in runs if succeeded(run)}
        sets.append(good - {unit_of(run) for run in runs if not succeeded(run)})
    return set.intersection(*sets) if sets else set()


def notes_of(runs: list[Run], repeats: list[Run]) -> list[str]:
    """Return what a reader must know of the runs of a group.

    Args:
        runs: those that count.
        repeats: of the same computation as one of them.
    """
    return [*_units_note(runs), *_other_notes(runs, repeats)]


def _units_note(runs: list[Run]) -> list[str]:
    """Return what intervals are over, and say so where they are over nothing but one unit."""
    units = {unit_of(run) for run in runs}
    parts = []
    for name, values in zip(UNIT_NAMES, zip(*units, strict=True), strict=True):
        known = sorted({str(value) for value in values})
        if len(known) > 1:
            parts.append(f"{len(known)} {name}s ({', '.join(known)})")
    if parts:
        return [f"Intervals (95 %) are over {len(units)} units: {' and '.join(parts)}."]
    seeds = sorted({run.record.run.seed for run in runs})
    same = "one base model, one forget set and one reference"
    if len(seeds) > 1:
        listed = ", ".join(map(str, seeds))
        return [
            f"Only the unlearning seed varies ({listed}), on {same}: n is 1 and there are no intervals; "
            "nothing here says whether a difference holds on another base model or forget set."
        ]
    return [f"All runs are of {same}: n is 1, no intervals, no established difference."]


def _other_notes(runs: list[Run], repeats: list[Run]) -> list[str]:
    notes = []
    label = runs[0].record.run.label
    if label:
        notes.append(f"{label}: says nothing about these methods on a pretrained model.")
    if repeats:
        notes.append(
            f"{len(repeats)} repeated runs (same configuration as a newer one) are listed, not counted."
        )
    bare = sum(not run.config for run in runs)
    if bare:
        notes.append(
            f"{bare} runs have no readable config.yaml: settings outside the record's choices are unknown."
        )
    logs = {
        str(model.path)
        for run in runs
        for model in run.record.models.values()
        if model.weights == FOREIGN
    }
    if logs:
        listed = ", ".join(sorted(logs))
        notes.append(
            f"The reference is foreign: not evaluated here, its rows are those of the log {listed}."
        )
    commits = Counter(str(run.record.run.commit) for run in runs)
    if len(commits) > 1:
        first = ", ".join([*sorted(commits)[:3], *(["…"] if len(commits) > 3 else [])])
        notes.append(f"Runs of {len(commits)} commits of the code: {first}.")
    if _targets_differ(runs):
        notes.append(
            "Runs of one unit began from targets (or are measured against references) with other numbers: "
            "other weights, or another machine. Their methods are compared over unlike models."
        )
    machines = Counter(run.record.machine.device for run in runs)
    if len(machines) > 1:
        notes.append(f"Runs of different machines: {', '.join(sorted(machines))}.")
    sets = {name for run in runs for name in run.record.protocol.get("rows", {})}
    for name in sorted(sets):
        counts = sorted({int(run.record.protocol.get("rows", {}).get(name, 0)) for run in runs})
        if len(counts) > 1:
            notes.append(f"Rows of the set {name} differ with the forget set: {counts}.")
    return notes


def _targets_differ(runs: list[Run]) -> bool:
    first: dict[Unit, Run] = {}
    return any(
        abs(value - other[name]) > SAME
        for run in runs
        for role in ("target", "reference")
        if role in run.record.models and role in first.setdefault(unit_of(run), run).record.models
        for other in [first[unit_of(run)].record.models[role].metrics]
        for name, value in run.record.models[role].metrics.items()
        if name in other
    )
