"""Whether a prompt is near the forget questions: naive Bayes over hashed n-grams of token ids."""

import zlib
from collections.abc import Iterable

import numpy as np

BUCKETS = 2**15  # of hashed n-grams
Ids = tuple[int, ...]


def log_odds(forget: Iterable[Ids], retain: Iterable[Ids], longest: int) -> np.ndarray:
    """Return, by bucket, log((f + 1) / (r + 1)) - log((F + 1) / (R + 1)) of n-grams in either set.

    f and r are the numbers of prompts of each set that hold the n-gram, F and R those of all prompts.
    Buckets that neither set has are 0.
    """
    counts, totals = np.zeros((2, BUCKETS)), np.zeros(2)
    for side, prompts in enumerate((forget, retain)):
        for prompt in prompts:
            counts[side, sorted(_buckets(prompt, longest))] += 1
            totals[side] += 1
    odds = np.log(counts[0] + 1) - np.log(counts[1] + 1)
    odds -= np.log(totals[0] + 1) - np.log(totals[1] + 1)
    return np.where(counts.sum(0) > 0, odds, 0.0).astype(np.float32)


def score(prompt: Ids, profile: np.ndarray, longest: int) -> float:
    """Return the mean log odds of a prompt's n-grams; larger is nearer to the forget set."""
    buckets = sorted(_buckets(prompt, longest))
    return float(profile[buckets].mean()) if buckets else 0.0


def threshold_of(scores: list[float], false_alarms: float) -> float:
    """Return the smallest of these scores that at most a share of them exceeds (a conformal quantile)."""
    ordered = sorted(scores)
    count = len(ordered)
    allowed = max(k for k in range(count) if k / count <= false_alarms)
    return ordered[count - 1 - allowed]


def _buckets(prompt: Ids, longest: int) -> set[int]:
    return {
        zlib.crc32(np.asarray(prompt[i : i + n], dtype="<i8").tobytes()) % BUCKETS
        for n in range(1, longest + 1)
        for i in range(len(prompt) - n + 1)
    }
