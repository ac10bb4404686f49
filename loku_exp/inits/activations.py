"""Inits that see what layers read and give for the data: EVA, CorDA, and RILA, the init of ReGLU.

Forward passes alone, no gradient. Each reduces to an eigenvalue problem of second moments.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from loku_exp.data.records import Records
from loku_exp.errors import UserError
from loku_exp.inits.cost import eigen_flops, solve_flops, svd_flops
from loku_exp.inits.fila import OVERSAMPLING, POWER_ITERATIONS, low_rank
from loku_exp.inits.interface import Factors, Layer, MeasureMoments
from loku_exp.runtime.knobs import Count, Inner, Positive, Seed

log = logging.getLogger(__name__)
ROUNDING = torch.finfo(torch.float32).eps ** 2  # of outputs in fp32, in their second moments


def eva(
    layers: Iterable[Layer], moments: MeasureMoments, *, number: Count | None = None
) -> Iterator[Factors]:
    """Yield A as the directions in which a layer's inputs vary most over the forget set, and B zero.

    EVA, Paischer et al. 2024, arXiv 2410.07170. Deviations: the right singular vectors are those of the
    uncentred inputs; every layer keeps the same rank (their rho = 1).

    Args:
        layers: the adapted layers.
        moments: measures second moments.
        number: forget examples; None: all.
    """
    wanted = list(layers)
    inputs = moments(_names(wanted), of="forget", side="inputs", by="token", number=number)
    for layer, moment in zip(wanted, inputs, strict=True):
        a = leading(moment, layer.rank).T
        yield Factors(layer.name, a, torch.zeros(len(layer.weight), layer.rank, device=a.device))


def corda(
    layers: Iterable[Layer],
    moments: MeasureMoments,
    *,
    damping: Positive = 0.01,
    number: Count | None = None,
) -> Iterator[Factors]:
    """Yield the part of each weight that acts most on the forget set's inputs.

    CorDA in its instruction-previewed mode, Yang et al. 2024, arXiv 2406.05223: with C the second moment of
    the inputs, ``s B A = (W C)_r C^-1``, the subscript being the truncated singular value decomposition.

    Args:
        layers: the adapted layers.
        moments: measures second moments.
        damping: added to C's diagonal, as a share of its mean; C of few tokens has no inverse.
        number: forget examples; None: all.
    """
    wanted = list(layers)
    inputs = moments(_names(wanted), of="forget", side="inputs", by="token", number=number)
    for layer, moment in zip(wanted, inputs, strict=True):
        c = moment.double()
        c.diagonal().add_(damping * c.diagonal().mean())
        weighted = (layer.weight.double() @ c).float()
        u, s, v = low_rank(weighted, layer.rank, layer.seed)
        root = (s / layer.scaling).sqrt()
        a = torch.linalg.solve(c, (v * root).double()).T.float()  # C is symmetric
        yield Factors(layer.name, a.contiguous(), u * root)


def rila(
    layers: Iterable[Layer],
    moments: MeasureMoments,
    *,
    beta: Inner = 0.7,
    number: Count | None = None,
    seed: Seed = 0,
) -> Iterator[Factors]:
    """Yield each weight's projection on the outputs that tell the forget from the retain set.

    RILA, the init of ReGLU (arXiv 2604.17396; sustech-nlp/ReGLU): with C_f, C_r the second moments of a
    layer's output summed over a text, Q holds the leading eigenvectors of ``(1 - beta) C_f - beta C_r``;
    B = Q, A = Q^T W. Deviations: padding is left out of the sums; as many retain as forget examples,
    drawn by a seed; a rank is refused that would part equal eigenvalues, as are the many zeros of fewer
    examples than outputs: which vectors it took were arbitrary. See `loku_exp.losses.regularisers.rol`.

    Args:
        layers: the adapted layers.
        moments: measures second moments.
        beta: weight of the retain set.
        number: examples of each set at most; None: all forget examples, and as many of the retain set.
        seed: which retain examples.
    """
    wanted = list(layers)
    sides = (
        moments(_names(wanted), of=of, side="outputs", by="text", number=number, seed=seed)
        for of in ("forget", "retain")
    )
    beyond = 0
    for layer, of_forget, of_retain in zip(wanted, *sides, strict=True):
        difference = (1 - beta) * of_forget.double() - beta * of_retain.double()
        values, vectors = torch.linalg.eigh(difference)
        # what is 0 comes out as this or less
        noise = ROUNDING * len(values) ** 0.5 * values.abs().max()
        standing_out = int((values > noise).sum())
        few, left = standing_out < layer.rank, values[: -layer.rank]
        if few and len(left) and values[-layer.rank] - left[-1] <= noise:
            raise UserError(
                f"init=rila: in {layer.name} the forget set stands out in {standing_out} directions only; "
                f"which others lora.rank={layer.rank} would add is arbitrary; lower it or take another init"
            )
        beyond += few
        q = vectors[:, -layer.rank :].flip(1).float()
        yield Factors(layer.name, q.T @ layer.weight.float(), q.contiguous())
    if beyond:
        log.warning(
            "init=rila: in %d of %d layers the forget set stands out in fewer directions than the rank; "
            "the others are those in which the retain set does so least",
            *(beyond, len(wanted)),
        )


def flops(init: str, layers: Iterable[Layer], knobs: dict[str, Any]) -> int:
    """Return the FLOPs beside measuring: eigenvectors, products, and CorDA's low-rank step and solution.

    Args:
        init: name of the function.
        layers: the adapted layers.
        knobs: it was called with.
    """
    total = 0
    for layer in layers:
        rows, columns = layer.weight.shape
        if init == eva.__name__:
            total += eigen_flops(columns)
        elif init == rila.__name__:
            total += eigen_flops(rows) + 2 * rows * columns * layer.rank
        else:
            total += 2 * rows * columns**2 + solve_flops(columns, layer.rank)
            total += svd_flops(
                [layer], oversampling=OVERSAMPLING, power_iterations=POWER_ITERATIONS
            )
    return total


def problems(*, name: str, records: Records, rank: int, number: int | None = None) -> list[str]:
    """Return whether there is no retain set, and which directions there are too few of.

    Args:
        name: of the init.
        records: of the run.
        rank: of the adapter.
        number: see `rila`.
    """
    if name != rila.__name__:
        return []
    if not records.retain:
        return [
            f"init={name}: it tells the forget from the retain set, and the dataset has 0 retain examples; "
            "give it some, or take another init"
        ]
    drawn = len(records.forget[:number])
    if rank <= drawn:
        return []
    return [
        f"lora.rank={rank}: {drawn} forget examples span no more than {drawn} directions, and init=rila "
        "takes as many as the rank; lower it, or take more of them (init.number, or a larger forget set)"
    ]


def _names(layers: list[Layer]) -> list[str]:
    return [layer.name for layer in layers]


def leading(moment: Tensor, rank: int) -> Tensor:
    """Return the eigenvectors (d, rank) of the largest eigenvalues, those first."""
    return torch.linalg.eigh(moment.double())[1][:, -rank:].flip(1).float().contiguous()
