"""The usual LoRA initialisation."""

import math
from collections.abc import Iterable, Iterator

import torch

from loku_exp.inits.interface import Factors, Layer


def vanilla(layers: Iterable[Layer]) -> Iterator[Factors]:
    """Yield A Kaiming-uniform (a = sqrt 5) and B zero, as Hu et al. 2021 and peft do; seeded by layer."""
    for layer in layers:
        rows, columns = layer.weight.shape
        generator = torch.Generator().manual_seed(layer.seed)
        bound = 1 / math.sqrt(columns)
        a = torch.empty(layer.rank, columns).uniform_(-bound, bound, generator=generator)
        yield Factors(layer.name, a, torch.zeros(rows, layer.rank))
