"""One tidy frame over runs, a row for each run, model and metric; tables, means, plots follow from it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from loku_exp.evaluation.catalogue import Metric
from loku_exp.report.collect import Run
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
    share = share_kept(record, model, what) if judged or name not in BASES else None
    if what and share is not None:
        label = next(metric.label for metric in record.catalogue if metric.name == what)
        yield (
            Metric(name=KEPT, label=f"{label} kept", better="high", unit="all", part="utility"),
            share,
        )
    epochs = record.training.get("epochs_to_forget") if name == "unlearned" else None
    if epochs is not None:
        yield EPOCHS, float(epochs)


def share_kept(record: Record, model: ModelPart, utility: str | None) -> float | None:
    """Return what a model kept as a share of the target's; of what is good when low, the inverse."""
    metric = next((metric for metric in record.catalogue if metric.name == utility), None)
    before = record.models["target"].metrics.get(utility or "")
    after = model.metrics.get(utility or "")
    if metric is None or not before or after is None:
        return None
    if metric.form == "perplexity" or metric.better == "low":
        return before / after if after else None
    return after / before
