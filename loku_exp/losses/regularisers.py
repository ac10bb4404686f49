"""Terms on an adapter's A and B that any loss can have beside it.

A regulariser is called once, before the first update, with the factors as they start and what it may
measure; it returns a function from the present factors to the term, which is called at each micro-batch.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from loku_exp.data.records import Records
from loku_exp.inits.activations import leading
from loku_exp.inits.interface import Factors, MeasureMoments
from loku_exp.runtime.knobs import Count, NonNegative, Seed

Penalty = Callable[[Mapping[str, Factors]], Tensor]
"""From A and B of each layer, as they are now, to a number that is minimised beside the loss."""


def rol(
    factors: Mapping[str, Factors],
    moments: MeasureMoments,
    *,
    weight: NonNegative = 0.5,
    rank: Count = 128,
    number: Count = 256,
    seed: Seed = 0,
) -> Penalty:
    """Return ``weight * sum over layers ||B^T Q||_F^2``, 0 where B writes orthogonally to the retain set.

    ROL, the regulariser of ReGLU (arXiv 2604.17396; sustech-nlp/ReGLU): Q (out, rank) holds the leading
    eigenvectors of C_r, the uncentred second moment of a layer's output, summed over a text, on the retain
    set under the target. Its gradient is ``2 weight Q Q^T B``; A is not in it. Deviations: padding is left
    out of the sums; the retain examples are drawn by a seed, not the first ones; directions that the
    examples cannot fill are refused, where the released code takes arbitrary or random ones.

    Args:
        factors: of the adapted layers.
        moments: measures second moments.
        weight: lambda.
        rank: directions of each layer.
        number: retain examples at most.
        seed: which.
    """
    measured = moments(
        list(factors), of="retain", side="outputs", by="text", number=number, seed=seed
    )
    kept = {name: leading(of, rank) for name, of in zip(factors, measured, strict=True)}

    def penalty(now: Mapping[str, Factors]) -> Tensor:
        return (
            weight * torch.stack([(now[n].b.T @ q).square().sum() for n, q in kept.items()]).sum()
        )

    return penalty


def problems(*, records: Records, widths: Mapping[str, int], rank: int, number: int) -> list[str]:
    """Return which directions there are too few of.

    Args:
        records: of the run.
        widths: outputs of each adapted layer.
        rank: see `rol`.
        number: see `rol`.
    """
    found, drawn = [], min(number, len(records.retain))
    if rank > drawn:
        found.append(
            f"regulariser.rank={rank}: {drawn} retain examples span no more than {drawn} directions; lower "
            "it, or take more of them (regulariser.number, or a larger retain set)"
        )
    narrow = min(widths, key=lambda name: widths[name])
    if rank >= widths[narrow]:
        found.append(
            f"regulariser.rank={rank}: {narrow} has {widths[narrow]} outputs, and as many directions are "
            "all of them; set it to less"
        )
    return found
