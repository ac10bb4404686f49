"""Rounding of weights: what a small update only just hid comes back when a model is deployed in few bits.

Every linear layer but the head is rounded and computed with as before, as if its weights had been read from
that format; activations are not rounded. Sources: Zhang et al. 2024 (arXiv 2410.16454) for the attack,
Dettmers et al. 2022 (arXiv 2208.07339) for absmax rounding, Dettmers et al. 2023 (arXiv 2305.14314) for
NF4. Deviations: the scales stay in fp32 (QLoRA rounds them, too), and no outlier column is left out. An
adapter is merged first, with what its init took from the base: what is rounded is what somebody deploys.
"""

from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from loku_exp.attacks.weights import attackable, put_back
from loku_exp.errors import ModelError
from loku_exp.models.load import linear_layers, weight_matrix
from loku_exp.runtime.cache import digest
from loku_exp.runtime.knobs import Count
from loku_exp.subject import Subject

QUANTISE_FORMAT = 1  # raise by hand whenever an unchanged attack gives other weights
Levels = Literal["uniform", "nf4"]


def quantise(
    subject: Subject, *, bits: Literal[4, 8], levels: Levels, group: Count | None
) -> Subject:
    """Return a subject with rounded weights.

    Args:
        subject: any with weights; a wrapper around a model is kept, and what it wraps is rounded.
        bits: of a weight.
        levels: ``uniform``, round to nearest; ``nf4``, the quantiles of a normal distribution.
        group: weights that share a scale, counted along the rows one after the other; None: those of an
            output channel.
    """
    recipe = [QUANTISE_FORMAT, subject.identity, bits, levels, group]
    return replace(
        subject,
        identity=digest({"quantise": recipe}),
        load=partial(_load, subject, bits, levels, group),
    )


def problems(name: str, bits: int, levels: str) -> list[str]:
    """Return what does not fit: NF4 has sixteen levels."""
    if levels == "nf4" and bits != 4:
        return [
            f"attacks.{name}.bits={bits}: nf4 has 4; set it to that, or attacks.{name}.levels=uniform"
        ]
    return []


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


@torch.no_grad()
def _load(
    subject: Subject, bits: int, levels: Levels, group: int | None, dtype: str | None = None
) -> Any:
    whole = subject.load(dtype=dtype)  # type: ignore[misc]  # a log is not attacked
    model = attackable(whole)
    layers = linear_layers(model)
    if not layers:
        raise ModelError(
            f"this {type(model).__name__} has no linear layer but its head, so there is nothing to quantise"
        )
    for layer in layers.values():
        weight = weight_matrix(layer)
        weight.copy_(rounded(weight, bits, levels, group))
    return put_back(whole, model)
