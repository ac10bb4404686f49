"""Negative preference optimisation (NPO, https://arxiv.org/abs/2404.05868) as a loss of one's own."""

from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.losses.terms import cross_entropy


def my_npo(
    forget: Scores, retain: Scores, *, beta: float = 0.1, retain_weight: float = 1.0
) -> LossTerms:
    """Push forget sequences below what the target gives them; cross-entropy on the retain set."""
    ratio = forget.sequence_sums(forget.logprobs() - forget.reference.logprobs())
    loss = -(2 / beta) * (-beta * ratio).sigmoid().log().mean()
    return LossTerms(loss, retain.mean(cross_entropy), retain_weight)
