"""Whether a model differs from its reference by more than chance: an interval for each metric's difference.

The jackknife (Quenouille, Tukey): every metric of both models is computed again without each unit in turn,
by the suite's own aggregates, so that it serves means and harmonic means alike. Units are the groups of
rows (authors), or single rows where a set has fewer than five: with one degree of freedom the factor of a
99 % interval is 64, and anything would be within chance. Of more than 200 units blocks are left out, 200 in
all: the work grows with the rows and not with their square. It says what other rows would have changed, not
what other training seeds would: that takes several runs.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, variance
from typing import Any

from scipy import stats

from loku_exp.evaluation.harness import names_of
from loku_exp.evaluation.suite import Evaluation, Row, Suite
from loku_exp.evaluation.tasks import Mean

CONFIDENCE = 0.99
FEWEST_GROUPS = 5  # for an interval over them
SAME = 1e-9  # a metric and the mean of its rows
MOST_UNITS = 200  # left out one at a time; of more, blocks


def half_widths(model: Sequence[Row], reference: Sequence[Row], suite: Suite) -> dict[str, float]:
    """Return, by metric, half the width of the interval of (model - reference); where there are two units.

    Args:
        model: rows of ``examples.jsonl`` of one model.
        reference: those of the model it is compared with; only common rows count.
        suite: whose aggregates the metrics are.
    """
    ours, theirs = _common(model, reference)
    without: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, unit in _units(ours):
        rest = [_without(rows, name, unit) for rows in (ours, theirs)]
        pair = [suite.aggregate(rows, None) for rows in rest]
        for metric in pair[0].keys() & pair[1].keys():
            without[metric][name].append(pair[0][metric] - pair[1][metric])
    found = {}
    for metric, by_set in without.items():
        # a metric that does not depend on a set is the same whichever of its units is left out
        strata = [v for v in by_set.values() if len(v) > 1 and max(v) > min(v)]
        if strata:
            variance = sum((len(v) - 1) / len(v) * _squares(v) for v in strata)
            freedom = sum(len(v) - 1 for v in strata)
            width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
            found[metric] = width
    return found


def widths_of_means(
    model: Evaluation, reference: Evaluation, tasks: Sequence[Any]
) -> dict[str, float]:
    """Return the same for tasks whose metrics are means over their rows, and for the means over such tasks.

    The jackknife of a mean is the paired t interval, which needs no row left out: abilities have
    thousands. Of a mean over k tasks: their variances, added up, over k squared.

    Args:
        model: its evaluation.
        reference: the one it is compared with; only common rows count.
        tasks: tasks and groups; `loku_exp.evaluation.tasks.Mean` among them has a metric of its own.
    """
    names = names_of(tasks)
    ours, theirs = (_of_tasks(evaluation, names) for evaluation in (model, reference))
    known: dict[str, tuple[float, int]] = {}  # variance of the mean difference, degrees of freedom
    for metric in ours.keys() & theirs.keys():
        common = ours[metric].keys() & theirs[metric].keys()
        apart = [ours[metric][row] - theirs[metric][row] for row in common]
        if len(apart) > 1:
            known[metric] = variance(apart) / len(apart), len(apart) - 1
    for group in (task for task in tasks if isinstance(task, Mean)):
        members = [known.get(f"{name}_{group.metric}") for name in group.required]
        of_group = [member for member in members if member is not None]
        if of_group and len(of_group) == len(members):
            added = sum(of_one for of_one, _ in of_group) / len(members) ** 2
            known[group.name] = added, sum(freedom for _, freedom in of_group)
    quantile = (1 + CONFIDENCE) / 2
    return {
        metric: float(stats.t.ppf(quantile, freedom)) * math.sqrt(of_mean)
        for metric, (of_mean, freedom) in known.items()
        if of_mean > 0
    }


def _of_tasks(evaluation: Evaluation, names: set[str]) -> dict[str, dict[Any, float]]:
    """Return the values by row of each metric that is their mean."""
    columns: dict[str, dict[Any, float]] = defaultdict(dict)
    for row in evaluation.examples:
        if row["set"] in names:
            for key, value in row.items():
                if isinstance(value, (int, float)):
                    columns[f"{row['set']}_{key}"][row["row"]] = value
    means = {metric: fmean(values.values()) for metric, values in columns.items()}
    measured = evaluation.metrics
    return {
        metric: values
        for metric, values in columns.items()
        if metric in measured and math.isclose(means[metric], measured[metric], abs_tol=SAME)
    }


def _squares(values: list[float]) -> float:
    centre = fmean(values)
    return sum((value - centre) ** 2 for value in values)


def _common(model: Sequence[Row], reference: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows both have; a published log has no groups, so the reference's take the model's."""
    groups = {(row["set"], row["row"]): row.get("group") for row in model}
    known = {(row["set"], row["row"]) for row in reference}
    ours = [row for row in model if (row["set"], row["row"]) in known]
    theirs = [
        row | {"group": groups[row["set"], row["row"]]}
        for row in reference
        if (row["set"], row["row"]) in groups
    ]
    return ours, theirs


def _units(rows: Sequence[Row]) -> list[tuple[str, tuple[str, set[Any]]]]:
    """Return what is left out in turn: set, "group" ("row" where groups are few), and which of them."""
    units: list[tuple[str, tuple[str, set[Any]]]] = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        key = "group"
        values = list(dict.fromkeys(row.get(key) for row in of_set))
        if len(values) < FEWEST_GROUPS:
            key, values = "row", [row["row"] for row in of_set]
        blocks = min(len(values), MOST_UNITS)
        units += [(name, (key, set(values[first::blocks]))) for first in range(blocks)]
    return units


def _without(rows: Sequence[Row], name: str, unit: tuple[str, set[Any]]) -> list[Row]:
    key, values = unit
    return [row for row in rows if row["set"] != name or row.get(key) not in values]
