"""One tidy frame over runs, a row for each run, model and metric; tables, means, plots follow from it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from loku_exp.evaluation.catalogue import Metric
from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, mean_over_units
from loku_exp.report.groups import Arm, Group
from loku_exp.report.units import unit_of
from loku_exp.results.schema import ModelPart, Record

COLUMNS = (  # of tables, beside metrics
    *("method", "model", "unit", "seed", "run", "runs", "n", "level", "reached"),
    *("success", "outcome", "collapsed", "on the front"),
)
BASES = ("target", "reference")
NO_ROWS = ["run", "folder", "subject", "collapsed", "metric", "value"]
KEPT, DISTANCE = "utility_kept", "distance"
EPOCHS = Metric(
    name="epochs_to_forget", label="epochs to forget", better="none", form="count", summary=True
)
ABOVE = Metric(
    name="above_goals", label="excess over the goals", better="low", unit="all", part="gap"
)


def tidy(runs: Iterable[Run], utility: str | None = None) -> pd.DataFrame:
    """Return the frame of finished runs.

    Columns: ``run``, ``folder``, the record's choices, ``seed``, ``forget_split``, ``base_seed``,
    ``reference_seed``, ``toy``, ``label``; of the model ``subject``, ``role``, ``attack``, ``weights``,
    ``compared_with``, ``success``, ``collapsed``; and ``metric``, ``value`` with its catalogue's words
    (``metric_label``, ``part``, ``form``, ``better``). An absent metric is an absent row.

    Beside the catalogue's metrics there are ``utility_kept`` (a share of the target's), ``above_goals``
    (by how much the farthest metric with a goal is above it, 0 where forgotten), ``distance`` (of what is
    known of the forget set to what the reference knows), ``epochs_to_forget`` of a stop rule.

    Args:
        runs: finished ones.
        utility: the metric that ``utility_kept`` is of; by default what each run's suite judges by.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        record, unit = run.record, unit_of(run)
        of_run = {"run": record.run.id, "folder": str(run.folder), **run.keys}
        of_run |= {"base_seed": unit.base, "reference_seed": unit.reference}
        of_run |= {"toy": record.run.toy, "label": record.run.label}
        for name, model in record.models.items():
            judged = model.judgement
            of_model: dict[str, Any] = {
                "subject": name,
                "role": model.role,
                "attack": name.partition("+")[2],
            }
            of_model |= {"weights": model.weights, "compared_with": model.reference or ""}
            of_model |= {"success": judged.success if judged else None}
            of_model |= {"collapsed": judged.collapsed if judged else None}
            for metric, value in _measured(record, name, model, utility):
                words = {"metric": metric.name, "value": value, "metric_label": metric.label}
                words |= {"part": metric.part, "form": metric.form, "better": metric.better}
                rows.append(of_run | of_model | words)
    return pd.DataFrame(rows or None, columns=None if rows else NO_ROWS)


@dataclass(frozen=True)
class Findings:
    """What the runs of a group say.

    Attributes:
        group: of the runs.
        utility: the metric that says what was kept, as the suites judge; None where runs share none.
    """

    group: Group
    utility: Metric | None

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The tidy frame of the runs that count, with ``arm`` (a label) and ``unit``."""
        frame = tidy(self.group.runs, self.utility.name if self.utility else None)
        by_folder = {str(run.folder): run for run in self.group.runs}
        labels = {
            name: self.group.label(self.group.arms[r.folder]) for name, r in by_folder.items()
        }
        frame["arm"] = frame["folder"].map(labels)
        frame["unit"] = frame["folder"].map({n: str(unit_of(run)) for n, run in by_folder.items()})
        return frame

    @cached_property
    def words(self) -> dict[str, Metric]:
        """The metrics of these runs by name, in the order of their catalogues."""
        return words_of(self.group.runs, self.utility.name if self.utility else None)

    @cached_property
    def gap(self) -> Metric | None:
        """What says how far from forgotten a model is; 0 is there (knowledge itself where nothing is)."""
        order = [m for part in ("gap", "knowledge") for m in self.words.values() if m.part == part]
        return next((metric for metric in order if self._in_all(metric.name)), None)

    @cached_property
    def kept(self) -> Metric | None:
        """The share of the target's utility that is left."""
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
        frame: tidy, with ``arm`` and ``unit``.
        words: by metric; p-values are averaged as logarithms.
    """
    found = {}
    for whole in (frame, frame.assign(arm="")):
        for key, part in whole.groupby(["arm", "subject", "metric"], sort=False):
            arm, subject, name = map(str, key)
            scaled = map(words[name].scaled, part["value"])
            if estimate := mean_over_units(list(zip(part["unit"], scaled, strict=True))):
                found[arm, subject, name] = estimate
    return found


def words_of(runs: Iterable[Run], utility: str | None = None) -> dict[str, Metric]:
    """Return the metrics of runs by name, in the order of their catalogues."""
    found: dict[str, Metric] = {}
    derived: dict[str, Metric] = {}
    for run in runs:
        own = {metric.name for metric in run.record.catalogue}
        for name, model in run.record.models.items():
            for metric, _ in _measured(run.record, name, model, utility):
                (found if metric.name in own else derived).setdefault(metric.name, metric)
    order = (ABOVE.name, DISTANCE, KEPT, EPOCHS.name)
    found |= {name: derived[name] for name in order if name in derived}
    labels = Counter(metric.label for metric in found.values()) + Counter(COLUMNS)
    return {  # columns are told apart by labels
        name: metric.model_copy(update={"label": f"{metric.label} ({name})"})
        if labels[metric.label] > 1
        else metric
        for name, metric in found.items()
    }


def original(metric: Metric, scaled: float) -> float:
    """Return a mean on the metric's own scale: of p-values the geometric mean."""
    return 10**scaled if metric.form == "p" else scaled


def _measured(
    record: Record, name: str, model: ModelPart, utility: str | None
) -> Iterable[tuple[Metric, float]]:
    """Yield the metrics a model has, then those derived from them."""
    metrics, judged = model.metrics, model.judgement
    for metric in record.catalogue:
        if metric.name in metrics:
            yield metric, metrics[metric.name]
    if judged and judged.goals and judged.goals.keys() <= metrics.keys():
        yield ABOVE, max(0.0, *(metrics[key] - goal for key, goal in judged.goals.items()))
    reference = record.models.get(model.reference or "")
    known = next((metric for metric in record.catalogue if metric.part == "knowledge"), None)
    if known and reference and known.name in metrics and known.name in reference.metrics:
        label = f"{known.label}: distance to the reference"
        words = {"name": DISTANCE, "label": label, "better": "low", "part": "gap"}
        yield (
            known.model_copy(update=words | {"summary": False}),
            abs(metrics[known.name] - reference.metrics[known.name]),
        )
    what = utility or (judged.utility if judged else None)
    share = _share(record, model, what) if judged or name not in BASES else None
    if what and share is not None:
        label = next(metric.label for metric in record.catalogue if metric.name == what)
        yield (
            Metric(name=KEPT, label=f"{label} kept", better="high", unit="all", part="utility"),
            share,
        )
    epochs = record.training.get("epochs_to_forget") if name == "unlearned" else None
    if epochs is not None:
        yield EPOCHS, float(epochs)


def _share(record: Record, model: ModelPart, utility: str | None) -> float | None:
    """Return what a model kept as a share of the target's; of what is good when low, the inverse."""
    metric = next((metric for metric in record.catalogue if metric.name == utility), None)
    before = record.models["target"].metrics.get(utility or "")
    after = model.metrics.get(utility or "")
    if metric is None or not before or after is None:
        return None
    if metric.form == "perplexity" or metric.better == "low":
        return before / after if after else None
    return after / before


def _kept_in_all(runs: list[Run], utility: str) -> bool:
    return all(
        _share(run.record, run.record.models["unlearned"], utility) is not None for run in runs
    )
