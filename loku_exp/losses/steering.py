"""A loss on hidden states: RMU."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from loku_exp.losses.retain import with_retain
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.runtime.knobs import Count, NonNegative

Kept = Literal["states", "ce", "kl"]


def rmu(
    forget: Scores,
    retain: Scores,
    *,
    layer: Count | Literal["middle"] = "middle",
    norm: NonNegative = 2.0,
    retain_term: Kept = "states",
    retain_weight: NonNegative = 1.0,
) -> LossTerms:
    """RMU, ``mean |h - norm u|^2 / d`` on forget rows + R, with u one random direction.

    h (d,) is the state after `layer`, u drawn from U[0, 1)^d and normalised, the same in every run. R is
    ``mean |h - h_target|^2 / d``, or as in other losses. Means are over the labelled tokens of a row, then
    over rows. Li et al., arXiv 2403.03218; open-unlearning ``src/trainer/unlearn/rmu.py`` and its yaml. In
    [0, inf). Layers above get no gradient of it.

    Deviations: the states are those that predict a labelled token (there those at it); all trained weights
    up to the layer learn; there the state is that after block 7 of blocks 0 to 15, so 8 of 16 in its main
    model, here ``middle`` takes that share of them. R over states is a mean over the retain rows of a
    micro-batch, so with ``reduction=update`` micro-batches of fewer rows weigh as much as others.

    Raises:
        ValueError: the model has no such layer.
    """
    layers = forget.num_layers
    depth = max(1, layers // 2) if layer == "middle" else layer
    if depth > layers:
        raise ValueError(
            f"loss.layer={layer}: the model has {layers} layers; take one of 1 to {layers}"
        )
    states = forget.hidden(depth)
    generator = torch.Generator().manual_seed(0)
    direction = torch.rand(states.shape[-1], generator=generator).to(states)
    loss = _distance(forget, states, norm * direction / direction.norm())
    if retain_term != "states":
        terms = with_retain(loss, retain, retain_term, retain_weight)
        return replace(terms, reaches_all=False)
    if not retain_weight:
        return LossTerms(loss, reaches_all=False)
    kept = _distance(retain, retain.hidden(depth), retain.reference.hidden(depth))
    return LossTerms(loss, kept, retain_weight, reaches_all=False)


def _distance(rows: Scores, states: Tensor, goal: Tensor) -> Tensor:
    squares = (states - goal).float().square().mean(dim=-1)[rows.mask]
    return rows.sequence_means(squares).mean()
