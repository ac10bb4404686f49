"""Weights rounded to few bits and back: integers by their largest magnitude, and NF4.

Dettmers et al. 2022 (arXiv 2208.07339) for absmax rounding, Dettmers et al. 2023 (arXiv 2305.14314) for
NF4; the scales stay in fp32 (QLoRA rounds them, too).
"""

from functools import cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from loku_exp.runtime.knobs import Levels


def rounded(weight: Tensor, bits: int, levels: Levels, group: int | None) -> Tensor:
    """Return a weight (out, in) rounded to its format and back, in fp32.

    With a the largest magnitude of a group, ``uniform`` gives the nearest of ``a * i / (2**(bits-1) - 1)``,
    halves to even; ``nf4`` the nearest of 16 levels times a, the lower one of two as near.
    """
    if levels == "nf4":
        codes, scale = nf4_codes(weight, group)
        return from_nf4_codes(codes, scale, weight.shape)
    groups, scale = _scaled(weight, group)
    most = 2 ** (bits - 1) - 1
    found = (groups * most).round() * (scale / most)
    return found.flatten()[: weight.numel()].view(weight.shape)


def nf4_codes(weight: Tensor, group: int | None) -> tuple[Tensor, Tensor]:
    """Return which of the 16 levels each weight is nearest to, (groups, group), and the groups' scales."""
    groups, scale = _scaled(weight, group)
    known = torch.tensor(nf4_levels(), device=weight.device)
    return torch.bucketize(groups, (known[1:] + known[:-1]) / 2, out_int32=True), scale


def from_nf4_codes(codes: Tensor, scale: Tensor, shape: torch.Size) -> Tensor:
    """Return the weight that codes and scales stand for, in fp32."""
    known = torch.tensor(nf4_levels(), device=codes.device)
    return (known[codes] * scale).flatten()[: shape.numel()].view(shape)


def _scaled(weight: Tensor, group: int | None) -> tuple[Tensor, Tensor]:
    """Return a weight's groups, by the largest magnitude of each, and these; zeros stay zeros."""
    size = group or weight.shape[1]
    flat = weight.float().flatten()
    groups = functional.pad(flat, (0, -len(flat) % size)).view(-1, size)
    scale = groups.abs().amax(1, keepdim=True)
    scale = torch.where(scale == 0, 1.0, scale)
    return groups / scale, scale


@cache
def nf4_levels() -> list[float]:
    """Return the sixteen levels in [-1, 1]: quantiles of N(0, 1), seven below 0 and eight above."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    below = stats.norm.ppf(np.linspace(1 - outermost, 0.5, 8))
    above = stats.norm.ppf(np.linspace(0.5, outermost, 9))[1:]
    return [float(level) for level in np.concatenate([below, above]) / above[-1]]
