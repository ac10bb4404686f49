"""FILA: start the adapter from the weights that matter for the forget set, leave the rest in the base.

LoKU (arXiv 2408.06621); released code csm9493/efficient-llm-unlearning, ``TOFU/forget.py``. With row
weights d from the relative Fisher information, the rank-r matrix X that minimises
``sum_i d_i^2 ||W_i - X_i||^2`` is ``D^-1 (D W)_r``; the adapter starts as ``scaling * B A = X``. It is
the row-wise relaxation of the elementwise weighted problem, which has no closed form.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from loku_exp.data.records import Records
from loku_exp.errors import UserError
from loku_exp.inits.cost import svd_flops
from loku_exp.inits.interface import Factors, Importance, Layer, MeasureFisher
from loku_exp.runtime.knobs import Count, FisherPass, Positive, Seed

OVERSAMPLING, POWER_ITERATIONS = 32, 8  # weighted error within 0.1 % of the optimum
MICRO_BATCH = 4  # of the released script
NEGLIGIBLE = 1e-6  # rows below this share of the largest row weight stay in the base
OFFICIAL_EPSILON = 1e-5


def fila(
    layers: Iterable[Layer],
    fisher: MeasureFisher,
    *,
    estimator: Literal["per_example", "batch_mean"] = "per_example",
    epsilon: Positive = 1e-5,
    epsilon_mode: Literal["absolute", "relative"] = "absolute",
    num_retain: Count | None = None,
    fisher_seed: Seed = 0,
    svd: Literal["randomized", "exact"] = "randomized",
    fisher_micro_batch: Count = MICRO_BATCH,
    fisher_pass: FisherPass = "auto",
) -> Iterator[Factors]:
    """Yield the weighted low-rank part of each layer.

    Args:
        layers: the adapted layers.
        fisher: measures importance.
        estimator: ``per_example`` (empirical Fisher) or ``batch_mean`` (squares of the mean gradients of
            `fisher_micro_batch` examples, as released).
        epsilon: added to the retain Fisher before dividing.
        epsilon_mode: ``absolute`` or ``relative`` to the mean retain Fisher of the layer.
        num_retain: retain examples to measure on; None: as many as forget examples.
        fisher_seed: which retain examples.
        svd: ``randomized`` (seeded) or ``exact``.
        fisher_micro_batch: examples of a mean of ``batch_mean``.
        fisher_pass: ``hooks`` (all layers at once), ``sweep`` (block by block, in far less memory), or
            ``auto``: the first where it fits. The same numbers.

    Deviations from the released code: per-example squares by default; an accurate, seeded low-rank
    step; rows without importance stay in the base instead of being divided by 1e-5.
    """
    importance = fisher(
        group_size=1 if estimator == "per_example" else fisher_micro_batch,
        epsilon=epsilon,
        relative=epsilon_mode == "relative",
        num_retain=num_retain,
        seed=fisher_seed,
        fisher_pass=fisher_pass,
    )
    for layer in layers:
        d = _row_weights(importance, layer)
        inverse = torch.where(d > NEGLIGIBLE * d.max(), 1 / d, 0)
        weighted = d[:, None] * layer.weight.float()
        u, s, v = low_rank(weighted, layer.rank, layer.seed, exact=svd == "exact")
        yield factors_of(layer, u, s, v, inverse)


def fila_official(
    layers: Iterable[Layer],
    fisher: MeasureFisher,
    *,
    fisher_micro_batch: Count = MICRO_BATCH,
    fisher_seed: Seed = 0,
    fisher_pass: FisherPass = "auto",
) -> Iterator[Factors]:
    """Yield FILA's factors by the released procedure.

    Squared gradients of micro-batches of 4 (its script; 2 in its README for Llama-2), absolute epsilon
    1e-5, ``torch.svd_lowrank(q=rank, niter=2)`` without oversampling (drawing from a seed of the layer
    instead of the global generator), and ``1 / (d + 1e-5)``.
    """
    importance = fisher(
        group_size=fisher_micro_batch,
        epsilon=OFFICIAL_EPSILON,
        relative=False,
        num_retain=None,
        seed=fisher_seed,
        fisher_pass=fisher_pass,
    )
    for layer in layers:
        d = _row_weights(importance, layer)
        weighted = d[:, None] * layer.weight.float()
        u, s, v = _seeded_svd(weighted, layer.rank, layer.seed, power_iterations=2)
        yield factors_of(layer, u, s, v, 1 / (d + OFFICIAL_EPSILON))


def _row_weights(importance: Importance, layer: Layer) -> Tensor:
    """Return the weights of a layer's rows.

    Raises:
        UserError: they are not finite, or all 0: such an adapter would start, and stay, at nothing.
    """
    d = importance.row_weights[layer.name].to(layer.weight.device)
    if not d.isfinite().all():
        raise UserError(
            f"the importance of {layer.name} is not finite: its retain Fisher is 0 somewhere and epsilon "
            "next to nothing, or a gradient overflows; raise init.epsilon, or set model.dtype=float32"
        )
    if not d.any():
        raise UserError(
            f"the forget set moves nothing of {layer.name} (its forget Fisher is 0), so FILA has "
            "nothing to start from; leave that layer out (model.lora_targets), or use init=vanilla"
        )
    return d


def problems(
    *,
    name: str,
    records: Records,
    estimator: str | None = None,
    fisher_micro_batch: int = MICRO_BATCH,
) -> list[str]:
    """Return whether the released procedure has too few retain examples; `fila` can take fewer.

    Args:
        name: of the init.
        records: of the run.
        estimator: of `fila`; one of single examples has no micro-batches.
        fisher_micro_batch: see `fila`.
    """
    if estimator == "per_example" and fisher_micro_batch != MICRO_BATCH:
        return [
            f"init.fisher_micro_batch={fisher_micro_batch}: init.estimator=per_example takes one example "
            "at a time; set init.estimator=batch_mean, or leave it out"
        ]
    forget, retain = len(records.forget), len(records.retain)
    if name != fila_official.__name__ or forget <= retain:
        return []
    return [
        f"init={name}: it measures on as many retain as forget examples, {forget}, and the dataset has "
        f"{retain}; give it more, or use init=fila with init.num_retain={retain}"
    ]


def flops(init: str, layers: Iterable[Layer], knobs: dict[str, Any]) -> int:
    """Return the FLOPs of an init of this module beside its Fisher, for the record of a run.

    Args:
        init: name of the function.
        layers: the adapted layers.
        knobs: it was called with.
    """
    if init == fila_official.__name__:
        return svd_flops(layers, oversampling=0, power_iterations=2)
    exact = knobs.get("svd") == "exact"
    return svd_flops(
        layers, oversampling=OVERSAMPLING, power_iterations=POWER_ITERATIONS, exact=exact
    )


def low_rank(
    matrix: Tensor, rank: int, seed: int, *, exact: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading singular triplets (m, rank), (rank,), (n, rank) of a matrix.

    Args:
        matrix: (m, n) fp32.
        rank: how many; at most min(m, n).
        seed: of the randomised method.
        exact: full decomposition in float64 instead.
    """
    rank = min(rank, *matrix.shape)
    if exact:
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
        u, s, v = u.float(), s.float(), vh.mT.float()
    else:
        q = min(rank + OVERSAMPLING, *matrix.shape)
        u, s, v = _seeded_svd(matrix, q, seed, POWER_ITERATIONS)
    return u[:, :rank], s[:rank], v[:, :rank]


def _seeded_svd(
    matrix: Tensor, q: int, seed: int, power_iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Run torch's randomised SVD without touching the global generator."""
    devices = [matrix.device] if matrix.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return torch.svd_lowrank(matrix, q=q, niter=power_iterations)


def factors_of(layer: Layer, u: Tensor, s: Tensor, v: Tensor, inverse: Tensor) -> Factors:
    """Split ``scaling * B @ A = diag(inverse) U S V^T`` evenly between the factors."""
    root = (s / layer.scaling).sqrt()
    return Factors(layer.name, (v * root).T.contiguous(), inverse[:, None] * u * root)
