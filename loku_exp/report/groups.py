"""Which runs may stand in one table: groups of equal protocol, arms to compare, units they vary over.

Nothing is averaged over what is not known to be equal. A group shares model, data, rows, scoring and
every other entry of the protocol; within it an arm is one method under one setting, and a unit is one
base model, forget set and reference. Unlearning seeds repeat a unit, they do not add one.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loku_exp.report.collect import Run
from loku_exp.report.measures import Kind, forgetting_of, kind_of, utility_of
from loku_exp.report.sharing import by_data, headlines, shared, text_of
from loku_exp.report.units import notes_of

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
    group.notes = notes_of(counted, repeats)
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


def _order(arm: Arm) -> tuple[Any, ...]:
    return (arm.rank or 10**6, arm.targets or "", arm.method, arm.recipe, arm.extras)
