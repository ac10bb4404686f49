"""RMU (https://arxiv.org/abs/2403.03218), a loss on hidden states of the model and of the target."""

import torch

from loku_exp.losses.scores import LossTerms, Scores


def my_rmu(
    forget: Scores, retain: Scores, *, layer: int, norm: float = 6.5, retain_weight: float = 100.0
) -> LossTerms:
    """Pull forget states after a layer to one random direction, keep retain states the target's."""
    states, kept = forget.hidden(layer), retain.hidden(layer)
    direction = torch.rand(states.shape[-1], generator=torch.Generator().manual_seed(0)).to(states)
    goal = norm * direction / direction.norm()
    steered = (states - goal).square().mean(-1)[forget.mask].mean()
    drift = (kept - retain.reference.hidden(layer)).square().mean(-1)[retain.mask].mean()
    return LossTerms(
        steered, drift, retain_weight, reaches_all=False
    )  # layers above get no gradient
