"""Whether a model has come to what its reference says of the forget set, asked amid training.

TOFU's recipe has a fixed number of epochs. With this rule it ends after the first one at which a metric of
the forget set is at the reference's or below: its mean probability, or the median of its log truth ratio.
The formulas are the evaluation's, over the same rows; nothing is generated. Ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Example
from loku_exp.data.records import Sequence as Text
from loku_exp.errors import ConfigError
from loku_exp.evaluation.lm.wavefront import teacher_forced
from loku_exp.evaluation.suite import Evaluation
from loku_exp.evaluation.tofu import metrics
from loku_exp.evaluation.tofu.judge import log_ratios
from loku_exp.runtime.settings import MeetReference

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Meeting:
    """What a check found.

    Attributes:
        forgotten: whether the value is at the goal or below.
        metric: its name.
        value: of the model.
    """

    forgotten: bool
    metric: str
    value: float

    def values(self) -> dict[str, float]:
        """See `loku_exp.evaluation.suite.StopCheck`."""
        return {f"check_{self.metric}": self.value}


class AtReference:
    """TOFU's stop rule, see `loku_exp.evaluation.suite.Stop`.

    Args:
        rows: the forget set as it is evaluated.
        metric: ``forget_prob`` or ``forget_shift``.
        goal: the value to come to; of a shift it is 0.
        ratios: log R of the reference by row, of a shift.
    """

    def __init__(self, rows: Sequence[Example], metric: str, goal: float, ratios: dict[int, float]):
        self._rows, self._metric, self._goal, self._ratios = rows, metric, goal, ratios
        self.thresholds: dict[str, Any] = {"metric": metric, "goal": goal}

    def __call__(self, model: Any) -> Meeting:
        """Return how near to the reference a model in evaluation mode is."""
        if self._metric == "forget_prob":
            losses = losses_of(model, [row.answer for row in self._rows])
            value = fmean(map(metrics.probability, losses))
        else:
            value = self._shift(model)
        return Meeting(value <= self._goal, self._metric, value)

    def _shift(self, model: Any) -> float:
        """Return the median log R less the reference's."""
        texts = [
            text
            for row in self._rows
            for text in (*row.alternatives["paraphrase"], *row.alternatives["wrong"])
        ]
        losses = iter(losses_of(model, texts))
        ratios = []
        for row in self._rows:
            paraphrase, *wrong = (next(losses) for _ in range(1 + len(row.alternatives["wrong"])))
            ratios.append(metrics.log_ratio(paraphrase, wrong))
        return metrics.forget_shift(ratios, [self._ratios[row.row] for row in self._rows])


def at_reference(
    rows: Sequence[Example],
    rule: MeetReference,
    target: Evaluation,
    reference: Evaluation,
) -> AtReference:
    """Return the rule for a target and its reference.

    Args:
        rows: the forget set as it is evaluated.
        rule: the recipe's.
        target: evaluation of the untouched model.
        reference: evaluation of the model that never saw the forget set.

    Raises:
        ConfigError: it was not measured, or the target is where the reference is, or below.
    """
    goal = 0.0 if rule.meets == "forget_shift" else reference.metrics.get(rule.meets)
    before = target.metrics.get(rule.meets)
    if goal is None or before is None:
        raise ConfigError(
            f"training.stop.meets={rule.meets}: it was not measured of target and reference; use another "
            "metric, or set training.stop=null"
        )
    if before <= goal:
        raise ConfigError(
            f"training.stop.meets={rule.meets}: the target has {before:.3f}, the reference "
            f"{goal:.3f}, so there is nothing to come down to before the first update; set "
            "training.stop=null, or give another target or reference"
        )
    return AtReference(rows, rule.meets, goal, log_ratios(reference.examples))


def meeting_problems(rows: Sequence[Example], rule: MeetReference) -> list[str]:
    """Return why a rule cannot be asked of these rows."""
    bare = [row for row in rows if not {"paraphrase", "wrong"} <= row.alternatives.keys()]
    if rule.meets == "forget_shift" and bare:
        return [
            "training.stop={meets: forget_shift}: it compares a paraphrase with wrong answers, and not "
            "every forget row has them; use training.stop={meets: forget_prob}"
        ]
    return []


@torch.no_grad()
def losses_of(model: Any, texts: Sequence[Text]) -> list[float]:
    """Return the mean negative log-probability per labelled token of each text, in nats."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i].ids))
    found = [0.0] * len(texts)
    while order:
        size = max(1, BATCH_TOKENS // len(texts[order[0]].ids))
        batch, order = order[:size], order[size:]
        padded = to_device(pad([texts[i] for i in batch]), model.device)
        logprobs, _ = teacher_forced(model, padded)
        for i, values in zip(batch, logprobs, strict=True):
            found[i] = -fmean(values)
    return found
