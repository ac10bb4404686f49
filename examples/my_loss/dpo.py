"""DPO with refusals, as in TOFU (https://arxiv.org/abs/2401.06121): a loss of three batches."""

from torch.nn.functional import logsigmoid

from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.losses.terms import cross_entropy


def my_dpo(
    forget: Scores, idk: Scores, retain: Scores, *, beta: float = 0.1, retain_weight: float = 1.0
) -> LossTerms:
    """Prefer a refusal to each forget row's answer, as measured from the target."""
    lost, won = (
        rows.sequence_sums(rows.logprobs() - rows.reference.logprobs()) for rows in (forget, idk)
    )
    loss = -logsigmoid(beta * (won - lost)).mean() / beta
    return LossTerms(loss, retain.mean(cross_entropy), retain_weight)
