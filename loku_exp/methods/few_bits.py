"""A base held in four bits while an adapter trains, so that a large model fits one card (QLoRA).

Dettmers et al. 2023, arXiv 2305.14314. Deviations: scales stay in fp32, and the model is evaluated, shipped
and reloaded with the base as it was: four bits are where it trains, not what comes out. The format is
that of bitsandbytes, whose layers are not used: what they compute depends on device, shape and mode.
"""

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from loku_exp.errors import ModelError
from loku_exp.models.load import gives_a_product, linear_layers
from loku_exp.runtime.rounding import from_nf4_codes, nf4_codes

GROUP = 64  # weights that share a scale


def check_holdable(model: nn.Module) -> None:
    """Check that the linear layers of a model can be held in four bits.

    Raises:
        ModelError: they are stored the other way round, as GPT-2's.
    """
    if any(isinstance(layer, Conv1D) for layer in linear_layers(model).values()):
        raise ModelError(
            f"lora.base=nf4: the layers of a {type(model).__name__} are stored the other way round and "
            "cannot be held so; leave it out (lora.base=null)"
        )


def hold_in_nf4(model: PeftModel) -> None:
    """Hold every frozen linear layer but the head in NF4, in place; routers that give more stay whole.

    Args:
        model: an adapted model, its base as it trains.
    """
    head = model.get_output_embeddings()
    frozen = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and layer is not head
        and not layer.weight.requires_grad
        and gives_a_product(layer)
    ]
    for name, layer in frozen:
        model.set_submodule(name, HeldInNf4(layer))


class HeldInNf4(nn.Module):
    """A linear layer whose weight is held in NF4 and made anew in both passes.

    Args:
        layer: whose weight is rounded; it computes in the precision of that.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        codes, scale = nf4_codes(layer.weight.detach(), GROUP)
        self.packed = nn.Buffer((codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8))
        self.scale = nn.Buffer(scale)
        self.bias, self.shape, self.dtype = layer.bias, layer.weight.shape, layer.weight.dtype

    @property
    def weight(self) -> Tensor:
        """Return the rounded weight, made anew."""
        codes = torch.stack([self.packed >> 4, self.packed & 15], -1).flatten(1).int()
        return from_nf4_codes(codes, self.scale, self.shape).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return what a plain layer of the rounded weight would."""
        product: Tensor = _Product.apply(x, self)
        return product


class _Product(torch.autograd.Function):
    """``x W^T + bias``, keeping neither x nor W for the backward pass."""

    @staticmethod
    def forward(context: Any, x: Tensor, held: HeldInNf4) -> Tensor:
        context.held, context.dtype = held, x.dtype
        return functional.linear(x, held.weight, held.bias)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return (gradient @ context.held.weight.to(gradient.dtype)).to(context.dtype), None
