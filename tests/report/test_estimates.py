"""Statistics of a report, by hand arithmetic and slow obvious versions."""

import math
import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from loku_exp.report.estimates import (
    at_level,
    block_bootstrap,
    mean_over_units,
    pareto_front,
    success_rate,
)


@pytest.mark.parametrize(("k", "n"), [(8, 10), (0, 5), (5, 5), (1, 2)])
def test_wilson_interval_by_hand(k, n):
    z, p = 1.959963984540054, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    rate = success_rate([(unit, unit < k) for unit in range(n)])
    assert (rate.value, rate.n) == (k / n, n)
    assert rate.low == pytest.approx(max(0, centre - half), abs=1e-12)
    assert rate.high == pytest.approx(min(1, centre + half), abs=1e-12)


def test_one_unit_has_a_rate_and_no_interval():
    rate = success_rate([("a", True), ("a", True)])
    assert (rate.value, rate.low, rate.high, rate.n) == (1.0, None, None, 1)


def test_wilson_interval_of_a_textbook_case():
    rate = success_rate([(unit, unit < 8) for unit in range(10)])
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.4902, 0.9433)


def test_a_unit_succeeds_only_with_all_its_seeds():
    rate = success_rate([("a", True), ("a", False), ("b", True), ("b", True)])
    assert (rate.value, rate.n) == (0.5, 2)
    assert success_rate([]) is None


def test_mean_over_units_by_hand():
    found = mean_over_units([("a", 1.0), ("b", 2.0), ("c", 3.0)])
    half = 4.302652729696142 / math.sqrt(3)  # t of 2 degrees of freedom; deviation 1
    assert found.value == 2
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_seeds_of_one_unit_do_not_narrow_the_interval():
    once = mean_over_units([("a", 1.0), ("b", 3.0)])
    often = mean_over_units([("a", 0.5), ("a", 1.5), ("a", 1.0), ("b", 3.0)])
    assert once == often
    alone = mean_over_units([("a", 1.0), ("a", 2.0)])
    assert (alone.value, alone.low, alone.n) == (1.5, None, 1)
    assert mean_over_units([]) is None


def test_front_equals_brute_force():
    rng = random.Random(0)
    for _ in range(200):
        points = [(rng.randrange(5) / 4, rng.randrange(5) / 4) for _ in range(rng.randrange(1, 9))]

        def beaten(p, q):
            return q[0] <= p[0] and q[1] >= p[1] and q != p

        slow = [i for i, p in enumerate(points) if not any(beaten(p, q) for q in points)]
        assert pareto_front(points) == slow


def test_level_is_interpolated_by_hand():
    path = [(1.0, 1.0), (0.6, 0.9), (0.2, 0.5)]
    assert at_level(path, 0.4) == pytest.approx(0.7)
    assert at_level(path, 0.6) == pytest.approx(0.9)
    assert at_level(path, 1.0) == 1.0
    assert at_level(path, 0.1) is None  # never reached
    assert at_level(path, 1.1) is None  # does not start above it


def test_level_is_read_at_the_first_crossing():
    path = [(1.0, 1.0), (0.4, 0.8), (0.9, 0.3), (0.1, 0.2)]
    assert at_level(path, 0.7) == pytest.approx(0.9)


def slow_bootstrap(differences, blocks, resamples, seed):
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(blocks))
    means = []
    for drawn in rng.integers(len(names), size=(resamples, len(names))):
        rows = [d for k in drawn for d, b in zip(differences, blocks, strict=True) if b == names[k]]
        means.append(fmean(rows))
    means.sort()

    def quantile(q):
        place = q * (len(means) - 1)
        low = math.floor(place)
        share = place - low
        return means[low] * (1 - share) + means[min(low + 1, len(means) - 1)] * share

    return quantile(0.025), quantile(0.975)


def test_bootstrap_equals_a_slow_loop():
    rng = random.Random(1)
    blocks = [rng.choice("abcde") for _ in range(30)]
    differences = [rng.gauss(0.3, 1) for _ in blocks]
    found = block_bootstrap(np.array(differences), blocks, resamples=200, seed=7)
    low, high = slow_bootstrap(differences, blocks, 200, 7)
    assert found.value == pytest.approx(fmean(differences))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.n == 5


def test_bootstrap_of_known_cases():
    same = block_bootstrap(np.full(6, 0.25), list("aabbcc"), resamples=100, seed=0)
    assert (same.value, same.low, same.high) == (0.25, 0.25, 0.25)
    one = block_bootstrap(np.array([1.0, 2.0]), ["a", "a"], resamples=100, seed=0)
    assert (one.value, one.low, one.n) == (1.5, None, 1)


def test_blocks_that_agree_within_widen_the_interval():
    """100 rows in 10 blocks of equal values: as uncertain as 10 rows, not as 100."""
    values = np.repeat(np.random.default_rng(0).normal(size=10), 10)
    blocks = np.repeat(np.arange(10), 10).tolist()
    by_block = block_bootstrap(values, blocks, resamples=2000, seed=0)
    by_row = block_bootstrap(values, list(range(100)), resamples=2000, seed=0)
    ratio = (by_block.high - by_block.low) / (by_row.high - by_row.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.15)


VALUES = some.lists(
    some.tuples(some.integers(0, 4), some.floats(-1, 1, allow_nan=False)), min_size=1, max_size=20
)


@given(VALUES)
def test_an_interval_is_around_its_mean_and_needs_two_units(values):
    estimate = mean_over_units(values)
    assert estimate.n == len({unit for unit, _ in values})
    assert min(v for _, v in values) - 1e-9 <= estimate.value <= max(v for _, v in values) + 1e-9
    if estimate.n == 1:
        assert (estimate.low, estimate.high) == (None, None)
    else:
        middle = (estimate.low + estimate.high) / 2
        assert middle == pytest.approx(estimate.value, abs=1e-9)


@given(VALUES, some.randoms())
def test_the_order_of_runs_changes_no_mean(values, random):
    mixed = list(values)
    random.shuffle(mixed)
    assert mean_over_units(mixed).value == pytest.approx(mean_over_units(values).value, abs=1e-9)


def test_of_nothing_there_is_no_estimate():
    assert mean_over_units([]) is None
    assert success_rate([]) is None
    assert pareto_front([]) == []
    assert at_level([], 0.5) is None
