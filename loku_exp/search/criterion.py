"""What a search looks for: the most of one metric where another is within a limit, on half of the rows."""

import math
from dataclasses import dataclass
from typing import Any

from loku_exp.errors import ConfigError, nearest
from loku_exp.evaluation.halves import evaluations_of, split_examples
from loku_exp.evaluation.suite import Facts, Suite


@dataclass(frozen=True)
class Criterion:
    """What is searched for.

    Attributes:
        maximise: a metric of the unlearned model on the selection half.
        constrain: a metric that must be at most the limit there.
        at_most: the limit; None: the reference's value plus `margin`.
        margin: what a run may lie above the reference.
        split_seed: of the halves.
    """

    maximise: str
    constrain: str
    at_most: float | None
    margin: float
    split_seed: int


def judged(
    examples: list[dict[str, Any]], criterion: Criterion, suite: Suite
) -> tuple[str | None, float | None, float | None]:
    """Return why a run is a failure or None, its value, and how far above the limit it is.

    Args:
        examples: its ``examples.jsonl``; only the selection half is looked at.
        criterion: what is searched for.
        suite: says what the rows amount to, and whether the model collapsed.

    Raises:
        ConfigError: a metric of the criterion is not among those of the half.
    """
    selection, _ = split_examples(examples, criterion.split_seed)
    found = evaluations_of(selection, suite)
    unlearned, reference = found["unlearned"], found.get("reference")
    value = unlearned.metrics[_known(criterion.maximise, unlearned.metrics)]
    constrained = unlearned.metrics[_known(criterion.constrain, unlearned.metrics)]
    if criterion.at_most is not None:
        limit = criterion.at_most
    elif reference is not None and criterion.constrain in reference.metrics:
        limit = reference.metrics[criterion.constrain] + criterion.margin
    else:
        raise ConfigError(f"{criterion.constrain} has no reference to compare with; add --at-most")
    judgement = suite.judge(unlearned, found["target"], reference, Facts())
    if judgement.collapsed:
        return judgement.sentence, None, None
    if not (math.isfinite(value) and math.isfinite(constrained)):
        return f"{criterion.maximise} is {value}, {criterion.constrain} {constrained}", None, None
    return None, value, constrained - limit


def _known(name: str, values: dict[str, float]) -> str:
    if name not in values:
        raise ConfigError(
            f"{name}: no metric of the selection half{nearest(name, values)}; it has "
            f"{', '.join(sorted(values))}"
        )
    return name
