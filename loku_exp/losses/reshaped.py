"""Losses that give a labelled token's place in the distribution to others: UNDIAL, CE-U, MASC.

z are logits, y the labelled token, R the retain term (`with_retain`). As published none of them has a
retain term, so `retain_weight` is 0; it may be raised.
"""

import math
from functools import partial

from torch import Tensor
from torch.nn.functional import relu

from loku_exp.data.records import Records
from loku_exp.losses.retain import with_retain
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.runtime.knobs import Count, Inner, NonNegative, NonNegativeCount, Positive, RetainTerm
from loku_exp.runtime.settings import Recipe


def undial(
    forget: Scores,
    retain: Scores,
    *,
    beta: NonNegative = 10.0,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 0.0,
) -> LossTerms:
    """Self-distillation, ``CE(softmax(z_target - beta onehot(y)), softmax(z))`` + R.

    Dong et al., arXiv 2402.10052 (UNDIAL); open-unlearning ``src/trainer/utils.py``. In [0, inf).
    Deviation: there the mean takes in prompt and padding, where the token 100th from the end is pushed
    down; here it is over labelled tokens.
    """
    values = forget.target_term(partial(_distilled, beta=beta))
    return with_retain(forget.mean_of(values), retain, retain_term, retain_weight)


def ce_u(
    forget: Scores,
    retain: Scores,
    *,
    skip: NonNegativeCount = 1,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 0.0,
) -> LossTerms:
    """Cross-entropy unlearning, ``CE(softmax(z without y), softmax(z))`` + R, the first without gradient.

    Yang, arXiv 2503.01224; open-unlearning ``src/trainer/unlearn/ceu.py``. In [0, inf). The first `skip`
    labelled tokens of each row are left out (a footnote of the paper); of phi's template the first one is
    "Answer".
    """
    kept = forget.places >= skip
    values = forget.token_term(_without_label) * kept
    skipped = (~kept).sum().clamp(max=len(kept) - 1)  # of a row of one token that one is all
    return with_retain(forget.mean_of(values, skipped), retain, retain_term, retain_weight)


def problems(
    *,
    name: str,
    records: Records,
    recipe: Recipe,
    skip: int = 1,
    retain_term: RetainTerm = "ce",
    retain_weight: float = 0.0,
) -> list[str]:
    """Return whether a retain term has no weight, and what `ce_u` leaves out too much of.

    Args:
        name: of the loss.
        records: of the run.
        recipe: of the training.
        skip: see `ce_u`.
        retain_term: another one than the default is asked for.
        retain_weight: which is 0 by default.
    """
    if retain_term == "kl" and not retain_weight:
        return [
            f"loss.retain_term=kl: loss={name} has it with weight 0, as published without a retain term; "
            "set loss.retain_weight=1, or leave retain_term out"
        ]
    return _skip_problems(records, recipe, skip) if name == ce_u.__name__ else []


def _skip_problems(records: Records, recipe: Recipe, skip: int) -> list[str]:
    """Return whether `ce_u` leaves out every token, or more than a row has and the mean is an update's.

    Only a micro-batch of its own mean knows how many tokens of it are left out.
    """
    lengths = [row.answer.num_labels for row in records.forget]
    if not lengths:
        return []
    shortest, longest = min(lengths), max(lengths)
    if skip >= longest:
        return [
            f"loss.skip={skip}: the longest forget row has {longest} labelled tokens, so nothing would be "
            f"learned; set it to less than {longest}"
        ]
    if recipe.reduction != "update" or skip <= shortest:
        return []
    return [
        f"loss.skip={skip}: a forget row has {shortest} labelled tokens, and the mean over an update "
        f"(training.reduction=update) counts {skip} of each row as left out; set it to {shortest} or less"
    ]


def masc(
    forget: Scores,
    retain: Scores,
    *,
    competitors: Count = 10,
    beta: Positive = 1.0,
    posterior: Inner = 0.7,
    width: Positive = 0.25,
    forget_weight: NonNegative = 0.05,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 0.0,
) -> LossTerms:
    """Margin to the strongest other tokens C, ``forget_weight mean relu((m - tau + width) / width)`` + R.

    ``m = beta z_y - log sum_{c in C} exp(beta z_c)`` and ``tau = log(posterior / (1 - posterior))``:
    sigmoid(m) is p(y) among y and C. In [0, inf); exactly 0, with no gradient, where m is below tau by the
    width. arXiv 2606.02920; code FedericoDiGennaro/Fast-LLM-Unlearning-MarginSelfCorrection, its TOFU
    settings. Deviations: all labelled tokens count (there a random suffix; short answers are whole there,
    too), and **its online stop is not built**: a run takes all updates of its recipe.
    """
    tau = math.log(posterior / (1 - posterior))
    term = partial(_margin, competitors=competitors, beta=beta)
    values = relu((forget.token_term(term) - tau + width) / width)
    loss = forget_weight * forget.mean_of(values)
    return with_retain(loss, retain, retain_term, retain_weight)


def _distilled(logits: Tensor, labels: Tensor, target_logits: Tensor, *, beta: float) -> Tensor:
    index = labels[:, None]
    lowered = target_logits.scatter(1, index, target_logits.gather(1, index) - beta)
    return _cross_entropy_to(lowered, logits)


def _without_label(logits: Tensor, labels: Tensor) -> Tensor:
    return _cross_entropy_to(logits.detach().scatter(1, labels[:, None], -math.inf), logits)


def _cross_entropy_to(wanted: Tensor, logits: Tensor) -> Tensor:
    """Return the cross-entropy to softmax(wanted), (n,)."""
    return -(wanted.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)


def _margin(logits: Tensor, labels: Tensor, *, competitors: int, beta: float) -> Tensor:
    index = labels[:, None]
    others = logits.scatter(1, index, -math.inf)
    strongest = others.topk(min(competitors, logits.shape[-1] - 1), dim=-1).values
    return beta * logits.gather(1, index).squeeze(1) - (beta * strongest).logsumexp(dim=-1)
