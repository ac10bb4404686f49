"""Gradient ascent with weights on tokens: WGA and SatImp.

f is the forget batch, p the probability of a labelled token, R the retain term (`with_retain`). The weights
carry no gradient; they let go of tokens that are forgotten, where GA goes on.
"""

from torch import Tensor

from loku_exp.losses.retain import with_retain
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.runtime.knobs import NonNegative, RetainTerm


def wga(
    forget: Scores,
    retain: Scores,
    *,
    beta: NonNegative = 1.0,
    forget_weight: NonNegative = 1.0,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """Weighted gradient ascent, ``-forget_weight mean(p^beta NLL)`` + R.

    Wang et al., arXiv 2502.19301; open-unlearning ``src/trainer/utils.py``. A value in
    [-1/(e beta), 0] times the weight; with beta 0 it is GD.
    """
    loss = _ascent(forget, beta, 0.0)
    return with_retain(forget_weight * loss, retain, retain_term, retain_weight)


def satimp(
    forget: Scores,
    retain: Scores,
    *,
    beta1: NonNegative = 5.0,
    beta2: NonNegative = 1.0,
    forget_weight: NonNegative = 1.0,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 0.1,
) -> LossTerms:
    """Saturation and importance, ``-forget_weight mean(p^beta1 (1-p)^beta2 NLL)`` + R.

    Yang et al., arXiv 2505.11953; open-unlearning ``src/trainer/utils.py``. The weights 1 and .1 are those
    of its class and README; its yaml has them the other way round. A value in (-1, 0] times the weight.
    """
    loss = _ascent(forget, beta1, beta2)
    return with_retain(forget_weight * loss, retain, retain_term, retain_weight)


def _ascent(forget: Scores, saturation: float, importance: float) -> Tensor:
    logprobs = forget.logprobs()
    probability = logprobs.detach().exp()
    return forget.mean_of(probability**saturation * (1 - probability) ** importance * logprobs)
