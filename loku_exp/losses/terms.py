"""What is computed per labelled token from its logits.

A term maps logits (n, V) in fp32 and labels (n,) to values (n,). It may bring a closed-form gradient;
without one, autograd differentiates it chunk by chunk.
"""

import torch
from torch import Tensor
from torch.nn import functional

from loku_exp.models.head import ClosedForm


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def _softmax_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Overwrite logits with their softmax; return it with the log-normaliser (n, 1)."""
    maximum = logits.max(dim=-1, keepdim=True).values
    total = logits.sub_(maximum).exp_().sum(dim=-1, keepdim=True)
    return logits.div_(total), maximum + total.log()


def _cross_entropy_with_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    index = labels[:, None]
    label_logits = logits.gather(1, index)
    probabilities, normaliser = _softmax_(logits)
    probabilities.scatter_add_(1, index, torch.full_like(label_logits, -1.0))
    return (normaliser - label_logits).squeeze(1), probabilities


def _inverted_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    index = labels[:, None]
    probabilities = logits.softmax(dim=-1)
    others = probabilities.scatter(1, index, -1.0)
    return 1 + probabilities.gather(1, index).squeeze(1) - others.max(dim=-1).values


def _inverted_hinge_with_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    index = labels[:, None]
    probabilities, _ = _softmax_(logits)
    of_label = probabilities.gather(1, index)
    probabilities.scatter_(1, index, -1.0)
    of_runner_up, runner_up = probabilities.max(dim=-1, keepdim=True)
    probabilities.scatter_(1, index, of_label)
    gradient = probabilities.mul_(of_runner_up - of_label)
    gradient.scatter_add_(1, index, of_label)
    gradient.scatter_add_(1, runner_up, -of_runner_up)
    return (1 + of_label - of_runner_up).squeeze(1), gradient


cross_entropy = ClosedForm(_cross_entropy, _cross_entropy_with_gradient)
"""-log p(label), in nats, >= 0. Gradient: p - onehot(label)."""

inverted_hinge = ClosedForm(_inverted_hinge, _inverted_hinge_with_gradient)
"""1 + p(label) - max over other tokens of p, in [0, 2], no unit.

LoKU (arXiv 2408.06621), inverted hinge loss; released code csm9493/efficient-llm-unlearning,
``TOFU/dataloader.py``. With q the runner-up's probability, p the label's, the gradient on logit v is
``p_v (q - p)``, plus ``p`` at the label, minus ``q`` at the runner-up (the first one in a tie).

Deviations: the softmax is always applied (the released code skips it when all logits happen to lie in
[0, 1]) and is fp32; no one-hot tensor is built.
"""


def divergence(logits: Tensor, labels: Tensor, target_logits: Tensor) -> Tensor:
    """KL(target || model) of the predicted distributions, in nats, >= 0; labels only say where."""
    target = target_logits.log_softmax(dim=-1)
    return (target.exp() * (target - logits.log_softmax(dim=-1))).sum(dim=-1)
