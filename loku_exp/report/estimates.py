"""Statistics of a report as pure functions: means over units, success rates, fronts, matched levels."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
FEW_BLOCKS = 10


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval; None where it cannot be had.
        high: upper end.
        n: units it is over.
    """

    value: float
    low: float | None
    high: float | None
    n: int


def mean_over_units(values: Sequence[tuple[Hashable, float]]) -> Estimate | None:
    """Return the mean of the units' means with a t interval over units.

    Args:
        values: unit and value of each run; runs of one unit are averaged first, so that repeating a
            unit under other unlearning seeds does not narrow the interval.

    Returns:
        None without values; no interval with one unit.
    """
    by_unit: dict[Hashable, list[float]] = {}
    for unit, value in values:
        by_unit.setdefault(unit, []).append(value)
    means = [fmean(of_unit) for of_unit in by_unit.values()]
    if not means:
        return None
    centre, n = fmean(means), len(means)
    if n == 1:
        return Estimate(centre, None, None, n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * stdev(means) / math.sqrt(n)
    return Estimate(centre, centre - half, centre + half, n)


def success_rate(outcomes: Sequence[tuple[Hashable, bool]]) -> Estimate | None:
    """Return the share of units that succeed with its Wilson interval.

    Args:
        outcomes: unit and success of each run; a unit counts where all its runs succeed.

    Returns:
        None without outcomes; no interval with one unit.
    """
    by_unit: dict[Hashable, bool] = {}
    for unit, success in outcomes:
        by_unit[unit] = by_unit.get(unit, True) and success
    if not by_unit:
        return None
    n, k = len(by_unit), sum(by_unit.values())
    if n == 1:
        return Estimate(float(k), None, None, n)
    interval = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other one beats: (gap, utility), gap small and utility large.

    A point is beaten by one that is at least as good in both and better in one; equal points stay.
    """
    front: list[int] = []
    best = -math.inf
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    for index in order:
        gap, utility = points[index]
        tied = bool(front) and points[front[-1]] == (gap, utility)
        if utility > best or tied:
            front.append(index)
            best = max(best, utility)
    return sorted(front)


def at_level(path: Sequence[tuple[float, float]], level: float) -> float | None:
    """Return the utility at the first moment forgetting reaches a level, interpolated linearly.

    Args:
        path: (knowledge of the forget set, utility) in the order of training; knowledge falls as the
            model forgets.
        level: of knowledge.

    Returns:
        None where the path does not start above the level, or never comes down to it.
    """
    if not path or path[0][0] < level:
        return None
    for (before, u), (after, v) in pairwise(path):
        if after <= level <= before:
            share = 0.0 if before == after else (before - level) / (before - after)
            return u + share * (v - u)
    return path[0][1] if path[0][0] == level else None


def block_bootstrap(
    differences: NDArray[np.float64], blocks: Sequence[Hashable], *, resamples: int, seed: int
) -> Estimate:
    """Return the mean paired difference with a percentile interval over resampled blocks.

    Blocks (authors, documents) are drawn with replacement, each with all its rows; the statistic is the
    mean over the drawn rows.

    Args:
        differences: (rows,) of the two models on the same row.
        blocks: block of each row.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        `Estimate` with n the number of blocks; no interval with one block.
    """
    names = {block: position for position, block in enumerate(dict.fromkeys(blocks))}
    member = np.array([names[block] for block in blocks])
    sums = np.bincount(member, weights=differences)
    counts = np.bincount(member)
    centre, n = float(differences.mean()), len(names)
    if n == 1:
        return Estimate(centre, None, None, n)
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(centre, float(low), float(high), n)
