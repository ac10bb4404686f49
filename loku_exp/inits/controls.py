"""Controls of FILA: starts that have its size or its arithmetic, and not its information.

What FILA gains over vanilla may come of three things: that the adapter starts with a part of the weights,
that this part is chosen by importance, and that importance is relative to the retain set. Each control
takes one away.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from loku_exp.inits.cost import svd_flops
from loku_exp.inits.fila import OVERSAMPLING, POWER_ITERATIONS, factors_of, fila
from loku_exp.inits.interface import Factors, Importance, Layer, MeasureFisher
from loku_exp.runtime.knobs import Count, FisherPass, Positive, Seed

CONSTANT = 1e6  # times the mean retain Fisher of a layer


def random_subspace(
    layers: Iterable[Layer],
    fisher: MeasureFisher,
    *,
    epsilon: Positive = 1e-5,
    num_retain: Count | None = None,
    fisher_seed: Seed = 0,
    fisher_pass: FisherPass = "auto",
) -> Iterator[Factors]:
    """Yield of each layer what a random subspace of its outputs holds, as large as FILA's part.

    ``X = c U U^T W`` with U (out, rank) orthonormal, drawn from the layer's seed, and c such that X has the
    Frobenius norm of FILA's part; the rest, ``W - X``, stays in the base exactly, as FILA's does.

    Args:
        layers: the adapted layers.
        fisher: measures importance, for FILA's norm.
        epsilon: see `fila`.
        num_retain: see `fila`.
        fisher_seed: see `fila`.
        fisher_pass: see `fila`.
    """
    wanted = list(layers)
    parts = fila(
        wanted,
        fisher,
        epsilon=epsilon,
        num_retain=num_retain,
        fisher_seed=fisher_seed,
        fisher_pass=fisher_pass,
    )
    for layer, part in zip(wanted, parts, strict=True):
        weight = layer.weight.float()
        norm = layer.scaling * (part.b @ part.a).norm()
        generator = torch.Generator().manual_seed(layer.seed)
        drawn = torch.randn(len(weight), min(layer.rank, *weight.shape), generator=generator)
        basis = torch.linalg.qr(drawn.to(weight))[0]
        u, s, vh = torch.linalg.svd(basis.T @ weight, full_matrices=False)
        size = norm / s.norm()
        yield factors_of(layer, basis @ u, size * s, vh.T, torch.ones_like(weight[:, 0]))


def fila_shuffled(
    layers: Iterable[Layer],
    fisher: MeasureFisher,
    *,
    epsilon: Positive = 1e-5,
    num_retain: Count | None = None,
    fisher_seed: Seed = 0,
    fisher_pass: FisherPass = "auto",
) -> Iterator[Factors]:
    """Yield FILA's part by row weights that are those of other rows: shuffled in each layer, by its seed.

    Args:
        layers: the adapted layers.
        fisher: measures importance.
        epsilon: see `fila`.
        num_retain: see `fila`.
        fisher_seed: see `fila`.
        fisher_pass: see `fila`.
    """
    wanted = list(layers)

    def shuffled(**knobs: Any) -> Importance:
        found = fisher(**knobs)
        weights = {}
        for layer in wanted:
            of_rows = found.row_weights[layer.name]
            generator = torch.Generator().manual_seed(layer.seed)
            weights[layer.name] = of_rows[torch.randperm(len(of_rows), generator=generator)]
        return replace(found, row_weights=weights)

    return fila(
        wanted,
        shuffled,
        epsilon=epsilon,
        num_retain=num_retain,
        fisher_seed=fisher_seed,
        fisher_pass=fisher_pass,
    )


def fila_constant_retain(
    layers: Iterable[Layer],
    fisher: MeasureFisher,
    *,
    num_retain: Count | None = None,
    fisher_seed: Seed = 0,
    fisher_pass: FisherPass = "auto",
) -> Iterator[Factors]:
    """Yield FILA's part by the forget set's importance alone: the retain Fisher counts as a constant.

    That is FILA with an epsilon far above every retain Fisher.

    Args:
        layers: the adapted layers.
        fisher: measures importance.
        num_retain: see `fila`.
        fisher_seed: see `fila`.
        fisher_pass: see `fila`.
    """
    return fila(
        layers,
        fisher,
        epsilon=CONSTANT,
        epsilon_mode="relative",
        num_retain=num_retain,
        fisher_seed=fisher_seed,
        fisher_pass=fisher_pass,
    )


def flops(init: str, layers: Iterable[Layer], knobs: dict[str, Any]) -> int:
    """Return the FLOPs of a control beside its Fisher: those of FILA's low-rank step.

    Args:
        init: name of the function.
        layers: the adapted layers.
        knobs: it was called with.
    """
    return svd_flops(layers, oversampling=OVERSAMPLING, power_iterations=POWER_ITERATIONS)
