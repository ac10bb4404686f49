"""The principal singular directions (PiSSA, https://arxiv.org/abs/2404.02948) as an init of one's own."""

from collections.abc import Iterator

import torch

from loku_exp.inits.interface import Factors, Layer


def principal(layers: list[Layer], *, share: float = 1.0) -> Iterator[Factors]:
    """Start from the largest singular directions of each weight, or from a share of them."""
    for layer in layers:
        u, s, vh = torch.linalg.svd(layer.weight.float(), full_matrices=False)
        root = (share * s[: layer.rank] / layer.scaling).sqrt()
        yield Factors(layer.name, root[:, None] * vh[: layer.rank], u[:, : layer.rank] * root)
