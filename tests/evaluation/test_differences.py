"""Intervals of the difference of two models, against arithmetic done by hand and the plain formula."""

import math
from dataclasses import replace
from statistics import fmean, variance

import pytest
from scipy import stats

from loku_exp.evaluation.differences import (
    FEWEST_GROUPS,
    MOST_UNITS,
    half_widths,
    widths_of_means,
)
from loku_exp.evaluation.suite import Evaluation
from loku_exp.evaluation.tasks import ChoiceTask, Mean, Option, Question, as_text
from tests.helpers import tiny_suite

SUITE = tiny_suite()


def rows(values, groups, name="forget"):
    return [
        {"set": name, "row": number, "group": group, "prob": value}
        for number, (value, group) in enumerate(zip(values, groups, strict=True))
    ]


def width(differences):
    """Half of the 99 % t interval of a mean, from the sample's variance."""
    n = len(differences)
    return float(stats.t.ppf(0.995, n - 1)) * math.sqrt(variance(differences) / n)


def test_by_hand():
    """Groups of one row each: differences .1, .2, .3, .4, .5 have variance .025; t(4) is 4.604."""
    model, reference = (
        rows([0.2, 0.4, 0.6, 0.8, 1.0], "abcde"),
        rows([0.1, 0.2, 0.3, 0.4, 0.5], "abcde"),
    )
    found = half_widths(model, reference, SUITE)
    assert found["forget_prob"] == pytest.approx(4.6041 * math.sqrt(0.025 / 5), rel=1e-4)


def test_groups_are_units_where_there_are_enough():
    groups = [f"author {number // 3}" for number in range(3 * FEWEST_GROUPS)]
    ours = [((7 * number) % 11) / 11 for number in range(len(groups))]
    theirs = [((5 * number) % 13) / 13 for number in range(len(groups))]
    means = [
        fmean(a - b for a, b, g in zip(ours, theirs, groups, strict=True) if g == group)
        for group in dict.fromkeys(groups)
    ]
    found = half_widths(rows(ours, groups), rows(theirs, groups), SUITE)
    assert found["forget_prob"] == pytest.approx(width(means))


@pytest.mark.parametrize("count", [1, 2, FEWEST_GROUPS - 1])
def test_rows_are_units_where_groups_are_few(count):
    """Two forgotten authors: .986 against .114 is no chance."""
    groups = [f"author {number % count}" for number in range(40)]
    ours = [0.986 - 0.001 * (number % 7) for number in range(40)]
    theirs = [0.114 + 0.002 * (number % 5) for number in range(40)]
    found = half_widths(rows(ours, groups), rows(theirs, groups), SUITE)["forget_prob"]
    assert found == pytest.approx(width([a - b for a, b in zip(ours, theirs, strict=True)]))
    assert found < 0.01


def test_of_many_rows_blocks_are_left_out():
    ours = [((7 * number) % 11) / 11 for number in range(3 * MOST_UNITS)]
    asked = []
    suite = replace(
        SUITE, aggregate=lambda rows, other: asked.append(rows) or SUITE.aggregate(rows, other)
    )
    groups = [None] * len(ours)
    found = half_widths(rows(ours, groups), rows([0.5] * len(ours), groups), suite)["forget_prob"]
    assert found == pytest.approx(width([fmean(ours[b::MOST_UNITS]) for b in range(MOST_UNITS)]))
    assert len(asked) == 2 * MOST_UNITS


def test_only_rows_that_both_have_count_and_a_log_takes_the_groups_of_the_model():
    groups = "abcdef"
    model, reference = rows([0.1, 0.5, 0.3, 0.9, 0.2, 0.6], groups), rows([0.2] * 5, "abcde")
    for row in reference:
        row.pop("group")
    found = half_widths(model, reference, SUITE)["forget_prob"]
    assert found == pytest.approx(width([-0.1, 0.3, 0.1, 0.7, 0.0]))


def test_without_two_units_there_is_none():
    assert half_widths(rows([0.5], "a"), rows([0.2], "a"), SUITE) == {}


def choices(name):
    return ChoiceTask(name, [Question(0, (Option("a", " b"), Option("a", " c")))], as_text)


def answered(right, metrics=None):
    """An evaluation of tasks: whether each question of each was answered right."""
    examples = [
        {"set": name, "row": row, "gold": 1, "chosen": 0, "acc": float(value)}
        for name, values in right.items()
        for row, value in enumerate(values)
    ]
    means = {f"{name}_acc": fmean(values) for name, values in right.items()}
    return Evaluation(
        means | {"reasoning_local": fmean(means.values())} | (metrics or {}), {}, examples
    )


def test_tasks_and_their_mean_by_hand():
    """Differences 0, 1, 0, -1, 0 have variance .5, and 1, 0, 0, 1 have a third."""
    tasks = [Mean("reasoning_local", [choices("arc"), choices("piqa")], "acc", ["arc", "piqa"])]
    model = answered({"arc": [1, 1, 0, 0, 1], "piqa": [1, 0, 1, 1]})
    reference = answered({"arc": [1, 0, 0, 1, 1], "piqa": [0, 0, 1, 0]})
    found = widths_of_means(model, reference, tasks)
    assert found.keys() == {"arc_acc", "piqa_acc", "reasoning_local"}
    assert found["arc_acc"] == pytest.approx(4.6041 * math.sqrt(0.5 / 5), rel=1e-4)
    assert found["piqa_acc"] == pytest.approx(5.8409 * math.sqrt(1 / 3 / 4), rel=1e-4)
    both = 3.4995 * math.sqrt((0.5 / 5 + 1 / 3 / 4) / 4)  # t of seven degrees of freedom
    assert found["reasoning_local"] == pytest.approx(both, rel=1e-4)


def test_a_mean_over_rows_has_the_interval_of_the_jackknife():
    values = [((7 * number) % 11) / 11 for number in range(40)]
    model, reference = rows(values, [None] * 40), rows([0.5] * 40, [None] * 40)
    mean = {"forget_prob": fmean(values)}, {"forget_prob": 0.5}
    pair = (
        Evaluation(metrics, {}, of) for metrics, of in zip(mean, (model, reference), strict=True)
    )
    found = widths_of_means(*pair, [choices("forget")])
    assert found == pytest.approx(half_widths(model, reference, SUITE))


def test_what_is_no_mean_of_its_rows_or_has_no_rows_has_no_interval_so():
    tasks = [Mean("reasoning_local", [choices("arc"), choices("piqa")], "acc", ["arc", "piqa"])]
    right = {"arc": [1, 1, 0], "piqa": [1, 0, 1]}
    other = answered({"arc": [0, 1, 0], "piqa": [1, 1, 1]})
    assert widths_of_means(answered(right, {"piqa_acc": 0.9}), other, tasks).keys() == {"arc_acc"}
    few = answered({"arc": [1], "piqa": [1, 0, 1]})
    assert widths_of_means(few, other, tasks).keys() == {"piqa_acc"}
    assert widths_of_means(few, few, tasks) == {}
