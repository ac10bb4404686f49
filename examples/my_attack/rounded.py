"""Rounded weights as an attack of one's own: what was only just unlearned comes back."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from loku_exp.methods.adapter import merged
from loku_exp.subject import Subject


def rounded(subject: Subject, *, bits: int = 4) -> Subject:
    """Round every row of every linear layer but the head to ``2**bits - 1`` levels."""

    @torch.no_grad()
    def load(dtype: str | None = None) -> Any:
        model = merged(subject.load(dtype=dtype))
        for layer in model.modules():
            if isinstance(layer, nn.Linear) and layer is not model.get_output_embeddings():
                step = layer.weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
                layer.weight.copy_((layer.weight / step).round() * step)
        return model.eval()

    return replace(subject, load=load)
