"""What the runs of a group say: their frame, means over units, and what they are judged by."""

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from loku_exp.evaluation.catalogue import Metric
from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, mean_over_units
from loku_exp.report.frame import KEPT, share_kept, tidy, words_of
from loku_exp.report.groups import Arm, Group, attack_settings
from loku_exp.report.units import Unit, shared_units, unit_of, unit_of_value, unit_text


@dataclass(frozen=True)
class Findings:
    """What the runs of a group say.

    Attributes:
        group: of the runs.
        utility: the metric that says what was kept, as the suites judge; None where runs share none.
        whole: the findings these are a part of; what they judge by is what those judge by.
    """

    group: Group
    utility: Metric | None
    whole: "Findings | None" = None

    def over(self, arms: Iterable[Arm], units: Set[Unit] | None = None) -> "Findings":
        """Return what the runs of some arms say, on some units or on all."""
        wanted = set(arms)
        runs = [
            run
            for run in self.group.runs
            if self.group.arms[run.folder] in wanted and (units is None or unit_of(run) in units)
        ]
        return Findings(replace(self.group, runs=runs), self.utility, self)

    def alike(self, arms: Iterable[Arm]) -> tuple["Findings", str]:
        """Return what some arms say over the units that all of them ran on, and that in words.

        Where they share none they are left as they are, which is said too; nothing is where all units
        are shared.
        """
        part = self.over(arms)
        shared = shared_units(part.group.by_arm().values())
        every = {unit_of(run) for run in part.group.runs}
        if not shared:
            return part, " The methods ran on no common unit: points are over unlike ones."
        if shared == every:
            return part, ""
        where = sorted(filter(None, (unit_text(unit, every) for unit in shared)))
        said = f" Over the units that all of these ran on ({'; '.join(where)})."
        return part.over(part.group.by_arm(), shared), said

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The tidy frame of the runs that count, with ``arm`` (a label), ``unit``, ``unit_of_value``."""
        frame = tidy(self.group.runs, self.utility.name if self.utility else None)
        by_folder = {str(run.folder): run for run in self.group.runs}
        labels = {
            name: self.group.label(self.group.arms[r.folder]) for name, r in by_folder.items()
        }
        frame["arm"] = frame["folder"].map(labels)
        frame["unit"] = frame["folder"].map({n: str(unit_of(run)) for n, run in by_folder.items()})
        columns = (frame.get(name, []) for name in ("folder", "subject", "part"))
        frame["unit_of_value"] = [
            str(unit_of_value(by_folder[folder], subject, part))
            for folder, subject, part in zip(*columns, strict=True)
        ]
        told = attack_settings(self.group.runs)
        frame["subject"] = [
            f"{subject} ({said})"
            if (said := told.get((folder, subject.partition("+")[2])))
            else subject
            for folder, subject in zip(frame["folder"], frame["subject"], strict=True)
        ]  # an attack in other settings is another attack
        return frame

    @cached_property
    def words(self) -> dict[str, Metric]:
        """The metrics of these runs by name, in the order of their catalogues."""
        return words_of(self.group.runs, self.utility.name if self.utility else None)

    @cached_property
    def gap(self) -> Metric | None:
        """What says how far from forgotten a model is; 0 is there (knowledge itself where nothing is)."""
        if self.whole:
            return self.whole.gap
        order = [m for part in ("gap", "knowledge") for m in self.words.values() if m.part == part]
        return next((metric for metric in order if self._in_all(metric.name)), None)

    @cached_property
    def kept(self) -> Metric | None:
        """The share of the target's utility that is left."""
        if self.whole:
            return self.whole.kept
        return self.words.get(KEPT) if self._in_all(KEPT) else None

    @cached_property
    def summary(self) -> list[Metric]:
        """The metrics that tables over many runs show, in order."""
        return [metric for metric in self.words.values() if metric.summary]

    def mean(
        self, metric: Metric | None, arm: Arm | None, subject: str = "unlearned"
    ) -> Estimate | None:
        """Return a mean over units on the metric's scale of averaging, or None where it was not measured.

        Args:
            metric: of these runs.
            arm: None for all runs.
            subject: which model.
        """
        if metric is None:
            return None
        return self.means.get((self.group.label(arm) if arm else "", subject, metric.name))

    @cached_property
    def means(self) -> dict[tuple[str, str, str], Estimate]:
        """Means over units; see `means_of`."""
        return means_of(self.frame, self.words)

    def _in_all(self, name: str) -> bool:
        having = self.frame[(self.frame.metric == name) & (self.frame.subject == "unlearned")]
        return len(self.group.runs) == having.folder.nunique()


def findings(group: Group) -> Findings:
    """Return what the runs of a group say, by the utility that all of them have."""
    judged = [run.record.judgement.utility for run in group.runs if run.record.judgement]
    words = [m for m in words_of(group.runs).values() if m.name in judged or m.summary]
    words = [m for m in words if m.part in ("utility", "ability") and m.name != KEPT]
    words.sort(key=lambda metric: (metric.name not in judged, metric.part != "utility"))
    return Findings(group, next((m for m in words if _kept_in_all(group.runs, m.name)), None))


def means_of(frame: pd.DataFrame, words: dict[str, Metric]) -> dict[tuple[str, str, str], Estimate]:
    """Return means over units with intervals by arm, model and metric; over all arms under ``""``.

    Args:
        frame: tidy, with ``arm`` and ``unit_of_value``.
        words: by metric; p-values are averaged as logarithms.
    """
    found = {}
    for whole in (frame, frame.assign(arm="")):
        for key, part in whole.groupby(["arm", "subject", "metric"], sort=False):
            arm, subject, name = map(str, key)
            scaled = map(words[name].scaled, part["value"])
            units = part["unit_of_value"]
            if estimate := mean_over_units(list(zip(units, scaled, strict=True))):
                found[arm, subject, name] = estimate
    return found


def original(metric: Metric, scaled: float) -> float:
    """Return a mean on the metric's own scale: of p-values the geometric mean."""
    return 10 ** min(scaled, 0.0) if metric.form == "p" else scaled


def ends_of(metric: Metric, estimate: Estimate) -> tuple[float | None, float | None]:
    """Return the ends of an interval on the scale of averaging, no farther than the metric can go."""
    least = 0.0 if metric.form not in ("p", "signed") and estimate.value >= 0 else -math.inf
    most = (
        1.0 if metric.form == "share" and metric.name != KEPT and estimate.value <= 1 else math.inf
    )
    most = 0.0 if metric.form == "p" else most
    low, high = estimate.low, estimate.high
    return (None if low is None else max(low, least), None if high is None else min(high, most))


def _kept_in_all(runs: list[Run], utility: str) -> bool:
    return all(
        share_kept(run.record, run.record.models["unlearned"], utility) is not None for run in runs
    )
