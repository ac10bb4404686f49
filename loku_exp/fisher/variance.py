"""VILA's importance: the variance of the gradients of a random adapter, in the shape of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from loku_exp.data.records import Example, Sequence
from loku_exp.errors import UserError
from loku_exp.fisher.accumulate import passes
from loku_exp.fisher.hooks import absolute_epsilon, frozen, row_weights
from loku_exp.fisher.measure import draw_retain
from loku_exp.inits.interface import Importance, Layer, MeasureVariance
from loku_exp.models.load import linear_layers
from loku_exp.runtime.logs import progress
from loku_exp.runtime.seeds import derive

Pair = tuple[Tensor, Tensor]
"""A (rank, in) and B (out, rank) of one layer, or something of their shapes."""


def variance_measure(
    model: nn.Module, forget: list[Example], retain: list[Example]
) -> MeasureVariance:
    """Return the callback an init measures this importance with.

    Args:
        model: the target model, not adapted yet.
        forget: the forget set.
        retain: the retain set to draw from.
    """

    def measure(
        layers: list[Layer],
        *,
        std: float,
        group_size: int,
        weighting: str,
        epsilon: float,
        num_retain: int | None,
        seed: int,
    ) -> Importance:
        """Return row weights from the variances on both sets."""
        drawn = draw_retain(retain, len(forget) if num_retain is None else num_retain, seed)
        if min(len(forget), len(drawn)) <= group_size:
            raise UserError(
                f"a variance needs more than one group of {group_size} examples, and there are "
                f"{len(forget)} forget and {len(drawn)} retain examples; set init.group_size to fewer"
            )
        adapter = random_adapter(layers, std, seed)
        counter = FlopCounterMode(display=False)
        with counter:
            of_forget, of_retain = (
                gradient_variances(
                    model, layers, adapter, [r.answer for r in records], group_size, weighting
                )
                for records in (forget, drawn)
            )
        weights: dict[str, Tensor] = {}
        below = total = 0
        for layer in layers:
            f, r = (b @ a for a, b in (of_forget[layer.name], of_retain[layer.name]))
            weights[layer.name] = row_weights(f, r, epsilon, relative=True).cpu()
            below += int((r < absolute_epsilon(r, epsilon, relative=True)).sum())
            total += r.numel()
        return Importance(weights, below / total, counter.get_total_flops())

    return measure


def random_adapter(layers: list[Layer], std: float, seed: int) -> dict[str, Pair]:
    """Return A and B of each layer, both drawn from N(0, std^2), fp32."""
    found = {}
    for layer in layers:
        rows, columns = layer.weight.shape
        generator = torch.Generator().manual_seed(derive(seed, "variance", layer.name))
        a = std * torch.randn(layer.rank, columns, generator=generator)
        b = std * torch.randn(rows, layer.rank, generator=generator)
        device = layer.weight.device
        found[layer.name] = (a.to(device).requires_grad_(), b.to(device).requires_grad_())
    return found


def gradient_variances(
    model: nn.Module,
    layers: list[Layer],
    adapter: dict[str, Pair],
    texts: list[Sequence],
    group_size: int,
    weighting: str = "labels",
) -> dict[str, Pair]:
    """Return the variance of the gradient of A and of B over groups, each weighted by its size.

    ``Var = max(Q / n - (G / n)^2, 0)`` with ``G = sum_b n_b g_b`` and ``Q = sum_b n_b g_b^2``, g_b the
    gradient of a group's token-mean cross-entropy with ``scaling B A`` added to each weight.

    Args:
        model: in evaluation mode; left as it was.
        layers: the adapted layers.
        adapter: A and B by layer, requiring gradients.
        texts: at least one.
        group_size: examples of a group.
        weighting: ``labels``: n_b counts its labelled tokens, ``examples``: its examples; n is their sum.
    """
    device = next(model.parameters()).device
    flat = [factor for pair in adapter.values() for factor in pair]
    sums = [torch.zeros_like(factor) for factor in flat]
    squares = [torch.zeros_like(factor) for factor in flat]
    n = 0
    with (
        frozen(model),
        _added(model, layers, adapter),
        torch.enable_grad(),
        progress(len(texts), "gradient variances", "text") as bar,
    ):
        for group in passes(texts, group_size, group_size, device):
            gradients = torch.autograd.grad(group.loss(model), flat)
            size = sum(group.counts) if weighting == "labels" else len(group.lengths)
            n += size
            for total, square, gradient in zip(sums, squares, gradients, strict=True):
                total.add_(gradient, alpha=size)
                square.addcmul_(gradient, gradient, value=size)
            bar.update(len(group.lengths))
    variances = iter(
        [(q / n - (g / n) ** 2).clamp(min=0) for g, q in zip(sums, squares, strict=True)]
    )
    return {name: (next(variances), next(variances)) for name in adapter}


@contextmanager
def _added(model: nn.Module, layers: list[Layer], adapter: dict[str, Pair]) -> Iterator[None]:
    """Add each layer's ``scaling B A x`` to its output."""
    linear = linear_layers(model)

    def adding(layer: Layer) -> Any:
        a, b = adapter[layer.name]

        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            added = layer.scaling * (args[0].to(a.dtype) @ a.T) @ b.T
            return output + added.to(output.dtype)

        return hook

    handles = [linear[layer.name].register_forward_hook(adding(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
