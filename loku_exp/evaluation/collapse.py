"""Whether a model is broken: it lost what it was to keep, or says nothing, or repeats itself."""

import math
import re
from collections.abc import Sequence

from loku_exp.evaluation.rouge import words_in_any_script
from loku_exp.evaluation.suite import Evaluation, Metrics

MIN_WORDS, MIN_DISTINCT = 10, 0.2
UNSPACED = re.compile(r"(.{1,32}?)\1{9,}.{0,31}", re.DOTALL)  # ten times the same, as ",,,,,,,,,,"
MORE_DEGENERATE = 0.25  # than the target


def collapse(model: Evaluation, target: Evaluation) -> str | None:
    """Return why a model counts as collapsed, or None.

    Half of the target's probability per token on the retain set is gone, or a quarter more of its retain
    generations than of the target's are empty or repeat themselves.
    """
    ours, theirs = _retain_probability(model.metrics), _retain_probability(target.metrics)
    if ours is not None and theirs is not None and ours < 0.5 * theirs:
        return f"retain probability {ours:.2g}, less than half of the target's {theirs:.2g}"
    share = _degenerate_share(_generations(model))
    if share > _degenerate_share(_generations(target)) + MORE_DEGENERATE:
        return f"{share:.0%} of its retain generations are empty or repeat themselves"
    return None


def is_degenerate(text: str) -> bool:
    """Return whether a generation is empty or keeps repeating a few words, or signs without spaces."""
    words = words_in_any_script(text)
    few = len(words) >= MIN_WORDS and len(set(words)) < MIN_DISTINCT * len(words)
    return not words or few or UNSPACED.fullmatch(text.strip()) is not None


def _retain_probability(metrics: Metrics) -> float | None:
    """Return the probability per token on the retain set, if it was measured."""
    if "retain_prob" in metrics:
        return metrics["retain_prob"]
    return math.exp(-metrics["retain_loss"]) if "retain_loss" in metrics else None


def _generations(evaluation: Evaluation) -> list[str]:
    rows = evaluation.examples
    return [row["generation"] for row in rows if row["set"] == "retain" and "generation" in row]


def _degenerate_share(texts: Sequence[str]) -> float:
    return sum(map(is_degenerate, texts)) / len(texts) if texts else 0.0
