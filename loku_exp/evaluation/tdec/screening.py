"""Which tokens a model guesses right, with the output head on a part of the vocabulary for most.

A token that is not the model's first guess is beaten by some other token, and one that beats it is enough
to know. So every position is first scored against the few tokens the batch itself holds, its label
among them: where another one is ahead by more than rounding can be, the guess is wrong whatever the rest of
the vocabulary says. Only the other positions, the right ones and few more, go through the whole head.

Cost beside the whole head: m / V for the m distinct labels of the batch, plus the share of positions that
is left. Near the threshold of forgetting (a third right) that is 0.4; the head is a third of a small
model's forward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loku_exp.data.batches import Padded
from loku_exp.models.head import (
    CHUNK_ELEMENTS,
    apply_term,
    hidden_before_head,
    label_positions,
)

WRONG = -1
"""Stands for the guess where it is known to be wrong and not which token it is."""


@torch.no_grad()
def guesses(model: Any, batch: Padded) -> list[list[int]]:
    """Return, per text, the likeliest token in place of each predicted one, or `WRONG`.

    For `extraction.hits` and what follows from it alone: which token a wrong guess is may not be known.

    Args:
        model: a causal language model.
        batch: every token labelled.
    """
    rows, columns = label_positions(batch)
    hidden = hidden_before_head(model, batch)[rows, columns]
    labels = batch["labels"][rows, columns + 1]
    head = model.get_output_embeddings()
    found = torch.full_like(labels, WRONG)
    left = ~_beaten(hidden, labels, head)
    if left.any():
        found[left] = apply_term(_argmax, hidden[left], labels[left], head).long()
    counts = torch.bincount(rows.cpu(), minlength=len(batch["input_ids"])).tolist()
    return [part.tolist() for part in found.cpu().split(counts)]


def _beaten(hidden: Tensor, labels: Tensor, head: nn.Linear) -> Tensor:
    """Return, (N,), whether a token among the labels is certainly likelier than a row's own label."""
    tokens = labels.unique()
    weight, bias = head.weight[tokens], None if head.bias is None else head.bias[tokens]
    own = torch.searchsorted(tokens, labels)
    rows = max(1, CHUNK_ELEMENTS // len(tokens))
    beaten = []
    for chunk, place in zip(hidden.split(rows), own.split(rows), strict=True):
        logits = functional.linear(chunk.to(weight.dtype), weight, bias)
        low, high = logits.aminmax(dim=1)
        # more than another order of summation can change in two logits, also where fp32 products are tf32
        relative = max(4 * torch.finfo(logits.dtype).eps, 1e-3)
        rounding = relative * torch.maximum(-low, high)
        beaten.append(high > logits.gather(1, place[:, None])[:, 0] + rounding)
    return torch.cat(beaten)


def _argmax(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(-1).double()  # ids are exact in float64
