"""Which runs may stand in one table: groups of equal protocol, arms to compare, units they vary over.

Nothing is averaged over what is not known to be equal. A group shares model, data, rows, scoring and
every other entry of the protocol; within it an arm is one method under one setting, and a unit is one
base model, forget set and reference. Unlearning seeds repeat a unit, they do not add one.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loku_exp.report.collect import Run
from loku_exp.report.measures import Kind, forgetting_of, kind_of, utility_of
from loku_exp.report.sharing import ROWS_OF_UNIT, by_data, headlines, shared, text_of
from loku_exp.table import SETS

CHOSEN = ("loss", "init", "lora.rank", "lora.targets", "training.recipe")
SECTIONS = ("loss.", "init.", "lora.", "training.", "model.", "dataset.", "target.", "reference.")
NO_SETTING = {  # keys of a configuration that say where things lie, how fast, or which unit
    "model.path",
    "model.tokenizer",
    "target.path",
    "reference.path",
    "dataset.path",
    "dataset.forget_set",
    "dataset.forget_split",
    "dataset.retain_split",
    "dataset.rows",
    "training.head",
    "training.chunk_rows",
    "training.gradient_checkpointing",
}
SAME = 0.005  # metrics of one model may differ by this between machines
INITS = {"vanilla": "vanilla", "fila": "FILA", "fila_official": "FILA as released"}


class Arm(NamedTuple):
    """A method under a setting.

    Attributes:
        method: loss and init.
        rank: of the adapter; None where all weights are trained.
        targets: layers with an adapter.
        recipe: of the training.
        extras: further settings, only those in which runs of the same choices differ.
    """

    method: str
    rank: int | None
    targets: str | None
    recipe: str
    extras: str


class Unit(NamedTuple):
    """What an interval is over."""

    base: Any
    reference: Any
    forget_set: Any


@dataclass
class Group:
    """Runs that may stand in one table.

    Attributes:
        headline: what they share, with what sets them apart from other groups.
        toy: whether data or model are toys.
        kind: family of the records.
        runs: those that count.
        repeats: of the same computation, shown but not counted.
        arms: of each run, by folder.
        notes: what a reader must know of this group.
    """

    headline: str
    toy: bool
    kind: Kind
    runs: list[Run]
    repeats: list[Run]
    arms: dict[Any, Arm]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        records = [run.record for run in self.runs]
        self.forgetting = forgetting_of(records)
        self.utility = utility_of(records)

    def by_arm(self) -> dict[Arm, list[Run]]:
        """Return the runs of each arm, arms in order."""
        found: dict[Arm, list[Run]] = {}
        for run in self.runs:
            found.setdefault(self.arms[run.folder], []).append(run)
        return dict(sorted(found.items(), key=lambda item: _order(item[0])))

    def label(self, arm: Arm, *, place: bool = True) -> str:
        """Return an arm's name: its method, and of its setting what differs within the group.

        Args:
            arm: of this group.
            place: False to leave out rank and layers, where an axis or a panel says them.
        """
        arms = set(self.arms.values())
        parts = [arm.method, *(self.place(arm) if place else [])]
        if len({other.recipe for other in arms}) > 1:
            parts.append(arm.recipe)
        return ", ".join([*parts, *([arm.extras] if arm.extras else [])])

    def place(self, arm: Arm) -> list[str]:
        """Return rank and layers of an arm, as far as they differ within the group."""
        arms = set(self.arms.values())
        parts = []
        if arm.rank is not None and len({other.rank for other in arms}) > 1:
            parts.append(f"rank {arm.rank}")
        if arm.targets and len({other.targets for other in arms if other.targets}) > 1:
            parts.append(arm.targets)
        return parts

    def by_rank(self) -> dict[Arm, list[Run]]:
        """Return the arms of one set of layers, that with the most ranks, and those without an adapter."""
        arms = self.by_arm()
        ranks = Counter(targets for _, targets in {(arm.rank, arm.targets) for arm in arms})
        ranks.pop(None, None)
        most = max(ranks, key=lambda targets: (ranks[targets], targets == "all"), default=None)
        return {arm: runs for arm, runs in arms.items() if arm.targets in (most, None)}

    def by_layers(self) -> dict[Arm, list[Run]]:
        """Return the arms of one rank, that with the most sets of layers."""
        arms = self.by_arm()
        sets = Counter(rank for rank, _ in {(arm.rank, arm.targets) for arm in arms if arm.rank})
        most = max(sets, key=lambda rank: sets[rank], default=None)
        return {arm: runs for arm, runs in arms.items() if arm.rank == most and arm.targets}


def unit_of(run: Run) -> Unit:
    """Return the unit of a run."""
    protocol = run.record.protocol
    seeds = protocol.get("seeds", {})
    return Unit(seeds.get("target"), seeds.get("reference"), protocol.get("forget_split"))


def group_runs(runs: list[Run]) -> list[Group]:
    """Sort runs that unlearned into groups; real ones before toys."""
    keyed: dict[str, list[Run]] = {}
    for run in runs:
        if run.unlearned:
            keyed.setdefault(text_of(shared(run)), []).append(run)
    parts = [part for members in keyed.values() for part in by_data(members)]
    titles = headlines(parts)
    groups = [_group(part, text) for part, text in zip(parts, titles, strict=True)]
    return sorted(groups, key=lambda group: (group.toy, group.headline))


def _group(members: list[Run], headline: str) -> Group:
    newest: dict[str, Run] = {}
    for run in sorted(members, key=lambda run: run.record.run.started):
        newest[run.record.run.id] = run
    counted = sorted(newest.values(), key=lambda run: str(run.folder))
    repeats = [run for run in members if run not in counted]
    first = counted[0].record
    group = Group(
        headline, first.run.toy, kind_of(first), counted, repeats, _arms([*counted, *repeats])
    )
    group.notes = [*_units_note(counted), *_other_notes(counted, repeats)]
    return group


def _arms(runs: list[Run]) -> dict[Any, Arm]:
    """Return the arm of each run; runs of equal choices with different settings are told apart."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(text_of([run.record.run.choices.get(key) for key in CHOSEN]), []).append(
            run
        )
    arms = {}
    for members in alike.values():
        keys = sorted({key for run in members for key in run.config if _is_setting(key)})
        varied = [k for k in keys if len({text_of(run.config.get(k)) for run in members}) > 1]
        for run in members:
            choices = run.record.run.choices
            extras = ", ".join(f"{_short(k, varied)} {run.config.get(k)}" for k in varied)
            arms[run.folder] = Arm(
                method=method_name(choices.get("loss"), choices.get("init")),
                rank=choices.get("lora.rank"),
                targets=choices.get("lora.targets") if choices.get("lora.rank") else None,
                recipe=str(choices.get("training.recipe")),
                extras=extras,
            )
    return arms


def method_name(loss: Any, init: Any) -> str:
    """Return what a loss and an init are called together."""
    name = str(loss).upper() if len(str(loss)) <= 4 else str(loss)
    return f"{name} + {INITS.get(init, init)}" if init else f"{name}, all weights"


def _is_setting(key: str) -> bool:
    return key.startswith(SECTIONS) and key not in NO_SETTING and not key.endswith("seed")


def _short(key: str, keys: list[str]) -> str:
    name = key.rpartition(".")[2]
    return name if sum(other.endswith(f".{name}") for other in keys) == 1 else key


def _units_note(runs: list[Run]) -> list[str]:
    """Return what intervals are over, and say so where they are over nothing but one unit."""
    units = {unit_of(run) for run in runs}
    parts = []
    for name, values in zip(
        ("base seed", "reference seed", "forget set"), zip(*units, strict=True), strict=True
    ):
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
    commits = Counter(str(run.record.run.commit) for run in runs)
    if len(commits) > 1:
        notes.append(f"Runs of {len(commits)} commits of the code: {', '.join(sorted(commits))}.")
    if _targets_differ(runs):
        notes.append(
            "Runs of one unit began from targets (or are measured against references) with other numbers: "
            "other weights, or another machine. Their methods are compared over unlike models."
        )
    rows = {name: sorted({_rows(run, name) for run in runs}) for name in ROWS_OF_UNIT & SETS.keys()}
    differ = {name: counts for name, counts in rows.items() if len(counts) > 1}
    notes += [f"Rows of {SETS[name]} differ: {counts}." for name, counts in sorted(differ.items())]
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


def _rows(run: Run, name: str) -> int:
    return int(run.record.protocol.get("rows", {}).get(name, 0))


def _order(arm: Arm) -> tuple[Any, ...]:
    return (arm.rank or 10**6, arm.targets or "", arm.method, arm.recipe, arm.extras)


def common_units(arms: Iterable[list[Run]], succeeded: Callable[[Run], bool]) -> set[Unit]:
    """Return the units on which every arm ran and every one of its runs succeeded."""
    sets = []
    for runs in arms:
        good = {unit_of(run) for run in runs if succeeded(run)}
        sets.append(good - {unit_of(run) for run in runs if not succeeded(run)})
    return set.intersection(*sets) if sets else set()
