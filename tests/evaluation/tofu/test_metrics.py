"""TOFU's formulas: by hand, in the official order of operations, and at the ends of their range."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from loku_exp.evaluation.tofu import metrics

losses = st.floats(0.001, 12)


def test_by_hand():
    # p(answer) = 1/2 per token, wrong answers 1/4 each
    assert metrics.probability(math.log(2)) == pytest.approx(0.5)
    assert metrics.choice_probability(math.log(2), [math.log(4)] * 2) == pytest.approx(0.5)
    log_r = metrics.log_ratio(math.log(2), [math.log(4), math.log(16)])
    assert math.exp(log_r) == pytest.approx(4)  # geometric mean wrong 1/8, paraphrase 1/2
    arithmetic = metrics.arithmetic_log_ratio(math.log(2), [math.log(4), math.log(16)])
    assert math.exp(arithmetic) == pytest.approx(0.5 / ((1 / 4 + 1 / 16) / 2))
    assert metrics.truth_ratio(log_r, forget=True) == pytest.approx(1 / 4)
    assert metrics.truth_ratio(log_r, forget=False) == pytest.approx(3 / 4)
    assert metrics.truth_ratio(-log_r, forget=True) == pytest.approx(1 / 4)
    assert metrics.truth_ratio(-log_r, forget=False) == 0
    assert metrics.forget_shift([3.0, 1.0, 2.0], [0.0, 5.0, 1.0]) == 1.0
    assert metrics.model_utility([0.5, 1.0]) == pytest.approx(2 / 3)


@given(losses, st.lists(losses, min_size=1, max_size=5))
def test_equal_to_the_official_order_of_operations(paraphrase, wrong):
    """locuslab/tofu: exponentials first, as aggregate_eval_stat.py and utils.py write them."""
    r = np.exp(np.mean(wrong) - paraphrase)
    geometric = metrics.log_ratio(paraphrase, wrong)
    assert metrics.truth_ratio(geometric, forget=True) == pytest.approx(min(r, 1 / r), rel=1e-9)
    expected = max(0, 1 - 1 / r)
    assert metrics.truth_ratio(geometric, forget=False) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )
    q = np.mean(np.exp(-np.array(wrong))) / np.exp(-paraphrase)
    arithmetic = metrics.arithmetic_log_ratio(paraphrase, wrong)
    assert metrics.truth_ratio(arithmetic, forget=True) == pytest.approx(min(q, 1 / q), rel=1e-9)
    expected = max(0, 1 - q)
    assert metrics.truth_ratio(arithmetic, forget=False) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )
    p = np.exp(-np.array([paraphrase, *wrong]))
    assert metrics.choice_probability(paraphrase, wrong) == pytest.approx(p[0] / p.sum(), rel=1e-9)


def test_exploded_losses_stay_in_range():
    exploded = metrics.log_ratio(5000.0, [1.0, 2.0])
    assert metrics.truth_ratio(exploded, forget=True) == 0
    assert metrics.truth_ratio(exploded, forget=False) == 0
    assert metrics.truth_ratio(-exploded, forget=False) == 1
    assert metrics.choice_probability(5000.0, [1.0, 2.0]) == 0
    assert metrics.probability(5000.0) == 0


def test_model_utility_is_zero_where_a_part_is():
    assert metrics.model_utility([0.0, *[0.5] * 8]) == 0


ratios = st.lists(st.floats(-5, 5), min_size=2, max_size=30)


@given(ratios, ratios)
def test_forget_quality_is_scipys(ours, theirs):
    expected = stats.ks_2samp(np.array(ours), np.array(theirs))
    assert metrics.forget_quality(ours, theirs) == (expected.pvalue, expected.statistic)


def test_forget_quality_sees_ranks_only():
    ours, theirs = [0.1, 0.5, 2.0, 3.0], [0.2, 0.4, 0.9]
    monotone = [math.exp(x) for x in ours], [math.exp(x) for x in theirs]
    assert metrics.forget_quality(ours, theirs) == metrics.forget_quality(*monotone)
    inverse = [-x for x in ours], [-x for x in theirs]  # R or 1/R, as logs store it
    assert metrics.forget_quality(ours, theirs) == pytest.approx(metrics.forget_quality(*inverse))


def test_identical_models_are_not_told_apart():
    assert metrics.forget_quality([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) == (1.0, 0.0)
