"""The retain term that a loss of unlearning ends with."""

from torch import Tensor

from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.losses.terms import cross_entropy, divergence
from loku_exp.runtime.knobs import RetainTerm


def with_retain(forget: Tensor, retain: Scores, term: RetainTerm, weight: float) -> LossTerms:
    """Return ``forget + weight * R(retain)``; with weight 0 the retain rows are not scored.

    Args:
        forget: the value on the forget rows.
        retain: the retain rows.
        term: ``ce``: R is their cross-entropy. ``kl``: KL(target || model), 0 at the start; LoKU's released
            code and open-unlearning's ``retain_loss_type: KL`` take it at all positions, padding included,
            here it is at those that predict a labelled token.
        weight: its coefficient.
    """
    if not weight:
        return LossTerms(forget)
    value = (
        retain.mean_of(retain.target_term(divergence))
        if term == "kl"
        else retain.mean(cross_entropy)
    )
    return LossTerms(forget, value, weight)
