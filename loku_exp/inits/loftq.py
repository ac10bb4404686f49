"""LoftQ: start the adapter from what rounding a weight to four bits would lose."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from loku_exp.inits.cost import svd_flops
from loku_exp.inits.fila import OVERSAMPLING, POWER_ITERATIONS, factors_of, low_rank
from loku_exp.inits.interface import Factors, Layer
from loku_exp.runtime.knobs import Count
from loku_exp.runtime.rounding import rounded


def loftq(
    layers: Iterable[Layer], *, iterations: Count = 5, group: Count = 64
) -> Iterator[Factors]:
    """Yield the low-rank part of each weight's rounding error.

    Li et al. 2023, arXiv 2310.08659, algorithm 1: with X zero at first, Q rounds ``W - X`` to NF4 and X
    is the rank-r part of ``W - Q``, in turns; the adapter starts as ``scaling * B A = X``.

    Args:
        layers: the adapted layers.
        iterations: turns (published: 5; PEFT: 1).
        group: weights that share a scale.

    Deviations: the base is ``W - X`` in full precision and not Q, so that the model is the target's at
    first, as with every init. PEFT's own code computes on a GPU alone. The low-rank step is FILA's.
    """
    for layer in layers:
        weight = layer.weight.float()
        part = torch.zeros_like(weight)
        for _ in range(iterations):
            lost = weight - rounded(weight - part, bits=4, levels="nf4", group=group)
            u, s, v = low_rank(lost, layer.rank, layer.seed)
            part = (u * s) @ v.T
        yield factors_of(layer, u, s, v, torch.ones_like(weight[:, 0]))


def flops(init: str, layers: Iterable[Layer], knobs: dict[str, Any]) -> int:
    """Return the FLOPs of the low-rank steps; rounding and the products between them are left out.

    Args:
        init: name of the function.
        layers: the adapted layers.
        knobs: it was called with.
    """
    once = svd_flops(layers, oversampling=OVERSAMPLING, power_iterations=POWER_ITERATIONS)
    return once * int(knobs.get("iterations", 5))
