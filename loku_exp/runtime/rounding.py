"""Weights rounded to few bits and back: integers by their largest magnitude, and NF4.

Dettmers et al. 2022 (arXiv 2208.07339) for absmax rounding, Dettmers et al. 2023 (arXiv 2305.14314) for
NF4; the scales stay in fp32 (QLoRA rounds them, too).
"""

from functools import cache
from typing import Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

Levels = Literal["uniform", "nf4"]


def rounded(weight: Tensor, bits: int, levels: Levels, group: int | None) -> Tensor:
    """Return a weight (out, in) rounded to its format and back, in fp32.

    With a the largest magnitude of a group, ``uniform`` gives the nearest of ``a * i / (2**(bits-1) - 1)``,
    halves to even; ``nf4`` the nearest of 16 levels times a, the lower one of two as near.
    """
    size = group or weight.shape[1]
    flat = weight.float().flatten()
    groups = functional.pad(flat, (0, -len(flat) % size)).view(-1, size)
    scale = groups.abs().amax(1, keepdim=True)
    scale = torch.where(scale == 0, 1.0, scale)  # zeros stay zeros
    if levels == "nf4":
        known = torch.tensor(nf4_levels(), device=weight.device)
        codes = torch.bucketize(groups / scale, (known[1:] + known[:-1]) / 2)
        found = known[codes] * scale
    else:
        most = 2 ** (bits - 1) - 1
        found = (groups / scale * most).round() * (scale / most)
    return found.flatten()[: len(flat)].view(weight.shape)


@cache
def nf4_levels() -> list[float]:
    """Return the sixteen levels in [-1, 1]: quantiles of N(0, 1), seven below 0 and eight above."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    below = stats.norm.ppf(np.linspace(1 - outermost, 0.5, 8))
    above = stats.norm.ppf(np.linspace(0.5, outermost, 9))[1:]
    return [float(level) for level in np.concatenate([below, above]) / above[-1]]
