"""VILA: FILA's low-rank step with another importance, the variance of a random adapter's gradients."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from loku_exp.data.records import Records
from loku_exp.inits.cost import svd_flops
from loku_exp.inits.fila import OVERSAMPLING, POWER_ITERATIONS, fila
from loku_exp.inits.interface import Factors, Importance, Layer, MeasureVariance
from loku_exp.runtime.knobs import Count, Positive, Seed

Weighting = Literal["labels", "examples"]


def vila(
    layers: Iterable[Layer],
    variance: MeasureVariance,
    *,
    std: Positive = 0.05,
    group_size: Count = 4,
    weighting: Weighting = "labels",
    epsilon: Positive = 1e-5,
    num_retain: Count | None = None,
    seed: Seed = 0,
) -> Iterator[Factors]:
    """Yield the weighted low-rank part of each layer, by VILA's importance.

    VILA, COLM 2025, arXiv 2508.21300; kyj93790/VILA, ``TOFU/vila.py``: an adapter with A and B both drawn
    from N(0, std^2) is put on the target, and v = Var(g) of the gradients of A and B over groups of
    examples gives ``I = v(B) v(A)``, in the shape of the weight, for forget and retain set.

    Deviations: the released code divides by the number of labels twice, so that its retain part vanishes
    beside 1e-5; here once, and epsilon is a share of the layer's mean retain importance. One epoch instead
    of ten over the same data.

    Args:
        layers: the adapted layers.
        variance: measures that importance.
        std: of the random adapter.
        group_size: examples of a gradient.
        weighting: what a group counts as in the variance: its labelled tokens (released), or its examples.
        epsilon: added to the retain importance before dividing, as a share of its mean in a layer.
        num_retain: retain examples; None: as many as forget examples.
        seed: of the adapter and of the retain examples.
    """
    wanted = list(layers)

    def importance(**_: Any) -> Importance:
        """Measure VILA's importance, whatever FILA asks for."""
        return variance(
            wanted,
            std=std,
            group_size=group_size,
            weighting=weighting,
            epsilon=epsilon,
            num_retain=num_retain,
            seed=seed,
        )

    return fila(wanted, importance)


def problems(*, records: Records, group_size: int = 4, num_retain: int | None = None) -> list[str]:
    """Return whether there are too few examples for a variance.

    Args:
        records: of the run.
        group_size: see `vila`.
        num_retain: see `vila`.
    """
    forget = len(records.forget)
    retain = forget if num_retain is None else num_retain
    if min(forget, retain) > group_size:
        return []
    return [
        f"init.group_size={group_size}: a variance needs more than one group, and it is measured on "
        f"{forget} forget and {retain} retain examples; set it to fewer"
    ]


def flops(init: str, layers: Iterable[Layer], knobs: dict[str, Any]) -> int:
    """Return the FLOPs beside measuring: those of FILA's low-rank step.

    Args:
        init: name of the function.
        layers: the adapted layers.
        knobs: it was called with.
    """
    return svd_flops(layers, oversampling=OVERSAMPLING, power_iterations=POWER_ITERATIONS)
