"""What an interval is over: base model, forget set, reference; and what must be said of some runs."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from loku_exp.report.collect import Run
from loku_exp.results.table import FOREIGN

UNIT_NAMES = ("base seed", "reference seed", "forget set")
COMPARED = ("gap", "test")  # parts of metrics that are against the reference
UNTAUGHT = {"from_scratch", "random"}
SAME = 0.005  # metrics of one model may differ by this between machines


class Unit(NamedTuple):
    """What an interval is over."""

    base: Any
    reference: Any
    forget_set: Any


def unit_of(run: Run) -> Unit:
    """Return the unit of a run; of a pretrained base, which hangs on no seed, the place stands for one."""
    protocol = run.record.protocol
    return Unit(_base_of(run, "target"), _base_of(run, "reference"), protocol.get("forget_split"))


def _base_of(run: Run, role: str) -> Any:
    model = run.record.models.get(role)
    if model is not None and model.weights == "pretrained":
        return model.path
    return run.record.protocol.get("seeds", {}).get(role)


def unit_of_value(run: Run, subject: str, part: str) -> Unit:
    """Return the unit of one of a run's values: what it cannot depend on is no part of it.

    A value hangs on the reference only where it is of the reference or says how near to it a model is. A
    pretrained model that nothing was done to is one and the same in all runs.

    Args:
        run: that it is of.
        subject: the model.
        part: of the metric, see `Metric`.
    """
    unit, model = unit_of(run), run.record.models[subject]
    if model.role == "untuned":
        return Unit(model.path, None, None)
    if subject.partition("+")[0] == "reference":
        return unit._replace(base=None)
    return unit if part in COMPARED else unit._replace(reference=None)


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


def shared_units(arms: Iterable[list[Run]]) -> set[Unit]:
    """Return the units on which every arm ran."""
    sets = [{unit_of(run) for run in runs} for runs in arms]
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
    parts, most = [], 0
    for name, values in zip(UNIT_NAMES, zip(*units, strict=True), strict=True):
        known = sorted({str(value) for value in values})
        if len(known) > 1:
            parts.append(f"{len(known)} {name}s ({', '.join(known)})")
            most = max(most, len(known)) if most else len(known)
    if parts:
        said = f"Intervals (95 %) are over {len(units)} units (n): {' and '.join(parts)}."
        crossed = (
            " Units that share one of these are not independent: such intervals are too narrow."
        )
        return [said + (crossed if len(parts) > 1 and len(units) > most else "")]
    seeds = sorted({run.record.run.seed for run in runs})
    parts = ["one base model", "one forget set"]
    parts += ["one reference"] if any("reference" in run.record.models for run in runs) else []
    same = f"{', '.join(parts[:-1])} and {parts[-1]}"
    if len(seeds) > 1:
        listed = ", ".join(map(str, seeds))
        return [
            f"Only the unlearning seed varies ({listed}), on {same}: n is 1 and there are no intervals; "
            "nothing here says whether a difference holds on another base model or forget set."
        ]
    return [f"All runs are of {same}: n is 1, no intervals, no established difference."]


def _other_notes(runs: list[Run], repeats: list[Run]) -> list[str]:
    notes = []
    of_run = runs[0].record.run
    if of_run.toy or {m.weights for m in runs[0].record.models.values()} & UNTAUGHT:
        what = f"{of_run.label}: " if of_run.label else ""
        notes.append(f"{what}says nothing about these methods on a pretrained model.")
    elif of_run.label:
        notes.append(f"{of_run.label}.")
    judged = [run.record.judgement for run in runs if run.record.judgement]
    said = Counter(_sentence(note) for judgement in judged for note in judgement.notes)
    notes += [note for note, count in said.items() if count > 1 or len(judged) == 1]
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


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


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
