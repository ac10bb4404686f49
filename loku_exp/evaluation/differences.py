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
from statistics import fmean
from typing import Any

from scipy import stats

from loku_exp.evaluation.suite import Row, Suite

CONFIDENCE = 0.99
FEWEST_GROUPS = 5  # for an interval over them
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
