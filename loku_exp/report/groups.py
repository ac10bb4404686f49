"""Which runs may stand in one table: groups of equal protocol, arms to compare, units they vary over.

Nothing is averaged over what is not known to be equal. A group shares model, data, rows, scoring and
every other entry of the protocol; within it an arm is one method under one setting, and a unit is one
base model, forget set and reference. Unlearning seeds repeat a unit, they do not add one.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from loku_exp.report.collect import Run, newest_of
from loku_exp.report.sharing import headlines, parted, text_of
from loku_exp.report.units import notes_of

CHOSEN = ("method", "loss", "regulariser", "init", "training.recipe")
PLACE = ("lora.rank", "lora.targets")
SECTIONS = (
    "method.", "loss.", "regulariser.", "init.", "lora.", "training.", "model.", "dataset.", "target.",
    "reference.",
)  # fmt: skip
NO_SETTING = {  # keys of a configuration that say where things lie, how fast, or which unit
    "model.path",
    "model.tokenizer",
    "model.attention",
    "model.finetuning.micro_batch_size",
    "target.path",
    "target.run",
    "reference.path",
    "dataset.path",
    "dataset.forget",
    "dataset.retain",
    "dataset.holdout",
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
        method: loss and init, or the name of a method that has none.
        rank: of the adapter; None where there is none.
        targets: layers with an adapter.
        recipe: of the training; empty where there is none.
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
        runs: those that count.
        repeats: of the same computation, shown but not counted.
        arms: of each run, by folder.
        notes: what a reader must know of this group.
    """

    headline: str
    toy: bool
    runs: list[Run]
    repeats: list[Run]
    arms: dict[Path, Arm]
    notes: list[str] = field(default_factory=list)

    def by_arm(self) -> dict[Arm, list[Run]]:
        """Return the runs of each arm, arms in order."""
        found: dict[Arm, list[Run]] = {}
        for run in self.runs:
            found.setdefault(self.arms[run.folder], []).append(run)
        return dict(sorted(found.items(), key=lambda item: order_of(item[0])))

    def label(self, arm: Arm, *, place: bool = True) -> str:
        """Return an arm's name: its method, and of its setting what differs within the group.

        Args:
            arm: of this group.
            place: False to leave out rank and layers, where an axis or a panel says them.
        """
        parts = [arm.method, *(self.place(arm) if place else [])]
        if arm.recipe and len({other.recipe for other in self.arms.values() if other.recipe}) > 1:
            parts.append(arm.recipe)
        return ", ".join([*parts, *([arm.extras] if arm.extras else [])])

    def place(self, arm: Arm) -> list[str]:
        """Return rank and layers of an arm, as far as they differ within the group."""
        arms, parts = set(self.arms.values()), []
        if arm.rank is not None and len({other.rank for other in arms if other.rank}) > 1:
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
    parts = parted([run for run in runs if run.record.unlearned])
    groups = [_group(part, text) for part, text in zip(parts, headlines(parts), strict=True)]
    return sorted(groups, key=lambda group: (group.toy, group.headline))


def method_of(choices: Mapping[str, Any]) -> str:
    """Return what the method of a run is called: by loss and init where it has them.

    Args:
        choices: of its record.
    """
    if "loss" not in choices:
        return str(choices.get("method", "none")).replace("_", " ")
    loss, init = str(choices["loss"]), choices.get("init")
    name = loss.upper() if len(loss) <= 4 else loss
    name += f" + {str(choices['regulariser']).upper()}" if choices.get("regulariser") else ""
    name = (
        f"{name} + {INITS.get(init, str(init).replace('_', ' '))}"
        if init
        else f"{name}, all weights"
    )
    return name if choices.get("method") in (None, "gradient") else f"{choices['method']}: {name}"


def _group(members: list[Run], headline: str) -> Group:
    counted = newest_of(members)
    repeats = [run for run in members if run not in counted]
    notes = notes_of(counted, repeats)
    toy = counted[0].record.run.toy
    return Group(headline, toy, counted, repeats, _arms([*counted, *repeats]), notes)


def _arms(runs: list[Run]) -> dict[Path, Arm]:
    """Return the arm of each run; runs of equal choices with different settings are told apart.

    A setting in which runs of one choice differ is told of all runs that have it, whatever their method,
    rank and layers: a method is one line over these, and a legend says of each what it says of one.
    """
    alike: dict[str, list[Run]] = {}
    for run in runs:
        choices = run.record.run.choices
        alike.setdefault(text_of([choices.get(key) for key in (*CHOSEN, *PLACE)]), []).append(run)
    varied = sorted({k for members in alike.values() for k in _varied(members) if _is_setting(k)})
    arms = {}
    for run in runs:
        choices, has = run.record.run.choices, [k for k in varied if run.config.get(k) is not None]
        arms[run.folder] = Arm(
            method=method_of(choices),
            rank=choices.get("lora.rank"),
            targets=choices.get("lora.targets") if choices.get("lora.rank") else None,
            recipe=str(choices.get("training.recipe") or ""),
            extras=", ".join(f"{_short(k, varied)} {run.config[k]}" for k in has),
        )
    return arms


def _varied(runs: list[Run]) -> list[str]:
    """Return the keys of configuration in which runs differ."""
    keys = {key for run in runs for key in run.config}
    return [key for key in keys if len({text_of(run.config.get(key)) for run in runs}) > 1]


def attack_settings(runs: list[Run]) -> dict[tuple[str, str], str]:
    """Return by folder and attack in which of its settings the runs that have it differ, in words."""
    found = {}
    for attack in {name.partition("+")[2] for run in runs for name in run.record.models} - {""}:
        having = [run for run in runs if f"target+{attack}" in run.record.models]
        begin = f"attacks.{attack}."
        varied = sorted(key for key in _varied(having) if key.startswith(begin))
        for run in having:
            parts = [f"{key.removeprefix(begin)} {run.config.get(key)}" for key in varied]
            found[str(run.folder), attack] = ", ".join(parts)
    return found


def _is_setting(key: str) -> bool:
    return key.startswith(SECTIONS) and key not in NO_SETTING and not key.endswith("seed")


def _short(key: str, keys: list[str]) -> str:
    name = key.rpartition(".")[2]
    return name if sum(other.endswith(f".{name}") for other in keys) == 1 else key


def order_of(arm: Arm) -> tuple[Any, ...]:
    """Return what arms are sorted by: rank as a number, then layers, then the method."""
    return (arm.rank or 10**6, arm.targets or "", arm.method, arm.recipe, arm.extras)
