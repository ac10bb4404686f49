"""Inits that see the weights alone: PiSSA and OLoRA, by PEFT's own code."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from loku_exp.inits.cost import qr_flops, svd_flops
from loku_exp.inits.interface import Factors, Layer


def pissa(layers: Iterable[Layer]) -> Iterator[Factors]:
    """Yield the principal part of each weight, its leading singular values split between A and B.

    Meng et al. 2024, arXiv 2404.02948. As FILA with every row of the same importance.

    Args:
        layers: the adapted layers.
    """
    return (_by_peft(layer, "pissa") for layer in layers)


def olora(layers: Iterable[Layer]) -> Iterator[Factors]:
    """Yield the first columns of Q and rows of R of each weight's QR decomposition (orthonormal B).

    Büyükakyüz 2024, arXiv 2406.01775.

    Args:
        layers: the adapted layers.
    """
    return (_by_peft(layer, "olora") for layer in layers)


def flops(init: str, layers: Iterable[Layer], knobs: dict[str, Any]) -> int:
    """Return the FLOPs of the decompositions: PiSSA's is exact, of all singular values.

    Args:
        init: name of the function.
        layers: the adapted layers.
        knobs: it was called with.
    """
    if init == olora.__name__:
        return qr_flops(layers)
    return svd_flops(layers, oversampling=0, power_iterations=0, exact=True)


def _by_peft(layer: Layer, kind: Any) -> Factors:
    """Return what PEFT makes of this layer alone; it takes the product out of its base as we do."""
    rows, columns = layer.weight.shape
    alone = nn.Sequential(nn.Linear(columns, rows, bias=False, dtype=torch.float32))
    alone[0].weight.data = layer.weight.float().clone()
    config = LoraConfig(
        r=layer.rank,
        lora_alpha=layer.scaling * layer.rank,  # type: ignore[arg-type]  # scaling is alpha / r
        target_modules=["0"],
        init_lora_weights=kind,
    )
    adapted: Any = get_peft_model(alone, config).get_submodule("base_model.model.0")
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    return Factors(layer.name, a.detach().float(), b.detach().float())
