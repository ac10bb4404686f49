"""The losses of LoKU's comparison. A loss names what it needs: forget, retain, and its knobs.

CE is the token-mean cross-entropy; f the forget batch, r the retain batch of the same size. Source:
csm9493/efficient-llm-unlearning, ``TOFU/dataloader.py``; all coefficients there are exactly 1.
"""

from loku_exp.losses.retain import with_retain
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.losses.terms import cross_entropy, inverted_hinge
from loku_exp.runtime.knobs import NonNegative, RetainTerm


def language_modelling(rows: Scores) -> LossTerms:
    """Cross-entropy, ``CE(rows)``: what models are fine-tuned on; no loss of unlearning."""
    return LossTerms(rows.mean(cross_entropy))


def ga(forget: Scores) -> LossTerms:
    """Gradient ascent, ``-CE(f)``. Unbounded below; the retain set is not used."""
    return LossTerms(-forget.mean(cross_entropy))


def gd(
    forget: Scores,
    retain: Scores,
    *,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """Gradient difference, ``-CE(f) + retain_weight * R(r)``, with R = CE; with ``kl`` it is LoKU's KL."""
    return with_retain(-forget.mean(cross_entropy), retain, retain_term, retain_weight)


def ihl(
    forget: Scores,
    retain: Scores,
    *,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """Inverted hinge loss, ``IHL(f) + retain_weight * R(r)``; LoKU, arXiv 2408.06621, with R = CE."""
    return with_retain(forget.mean(inverted_hinge), retain, retain_term, retain_weight)
