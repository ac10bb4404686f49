"""Losses on whole answers: NPO, SimNPO, DPO with refusals, and plain fine-tuning on refusals.

f is the forget batch, r the retain batch, R the retain term (`with_retain`). log p(y) of an answer is
summed over its labelled tokens; "target" is the model before unlearning. Means run over the rows of a
micro-batch.
"""

from torch.nn.functional import logsigmoid

from loku_exp.losses.retain import with_retain
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.losses.terms import cross_entropy
from loku_exp.runtime.knobs import NonNegative, Number, Positive, RetainTerm


def npo(
    forget: Scores,
    retain: Scores,
    *,
    beta: Positive = 0.1,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """Negative preference optimisation, ``-(2/beta) log sigmoid(-beta log(p/p_target))`` + R.

    Zhang et al., arXiv 2404.05868, eq. of L_NPO; open-unlearning ``src/trainer/utils.py``. In
    [0, inf), ``2 log 2 / beta`` at the start; for beta to 0 its gradient is that of GA.
    """
    ratio = forget.sequence_sums(forget.logprobs() - forget.reference.logprobs())
    loss = -2 / beta * logsigmoid(-beta * ratio).mean()
    return with_retain(loss, retain, retain_term, retain_weight)


def simnpo(
    forget: Scores,
    retain: Scores,
    *,
    beta: Positive = 4.5,
    delta: Number = 0.0,
    forget_weight: NonNegative = 0.125,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """SimNPO, ``-forget_weight (2/beta) log sigmoid(beta (NLL - delta))`` + R, without the target.

    NLL is the token mean of each answer. Fan et al., arXiv 2410.07163; OPTML-Group/Unlearn-Simple and
    open-unlearning ``src/trainer/unlearn/simnpo.py``, whose values the defaults are: the origin tunes beta
    (2.5) and the weight (.1375) by split. In (0, forget_weight (2/beta) log(1 + e^(beta delta))].
    """
    loss = -forget.sequence_means(forget.logprobs())
    loss = -forget_weight * 2 / beta * logsigmoid(beta * (loss - delta)).mean()
    return with_retain(loss, retain, retain_term, retain_weight)


def idk(
    forget: Scores,
    idk: Scores,
    retain: Scores,
    *,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """Fine-tuning on refusals, ``CE(idk)`` + R; the forget answers are not scored.

    Maini et al., arXiv 2401.06121 (TOFU), "preference optimisation" without DPO; locuslab/tofu
    ``dataloader.py``, loss ``idk``. In [0, inf). Deviation: there both sets share one token mean, so that
    the longer texts weigh more; here each has its own.
    """
    return with_retain(idk.mean(cross_entropy), retain, retain_term, retain_weight)


def dpo(
    forget: Scores,
    idk: Scores,
    retain: Scores,
    *,
    beta: Positive = 0.1,
    retain_term: RetainTerm = "ce",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """Prefer refusal w to answer l, ``-(2/beta) log sigmoid(beta (log(p/p_target)(w) - ...(l)))`` + R.

    Rafailov et al., arXiv 2305.18290, eq. 7, with NPO's factor; open-unlearning ``src/trainer/utils.py``.
    In [0, inf), ``2 log 2 / beta`` at the start. LoKU's released ``dpo`` does not run.
    """
    won, lost = (
        rows.sequence_sums(rows.logprobs() - rows.reference.logprobs()) for rows in (idk, forget)
    )
    loss = -2 / beta * logsigmoid(beta * (won - lost)).mean()
    return with_retain(loss, retain, retain_term, retain_weight)
