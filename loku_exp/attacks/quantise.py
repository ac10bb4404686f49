"""Rounding of weights: what a small update only just hid comes back when a model is deployed in few bits.

Every linear layer but the head, and every expert, is rounded and computed with as before, as if its weights
had been read from that format; activations are not rounded. Sources: Zhang et al. 2024 (arXiv 2410.16454)
for the attack, Dettmers et al. 2022 (arXiv 2208.07339) for absmax rounding, Dettmers et al. 2023 (arXiv
2305.14314) for NF4. Deviations: the scales stay in fp32 (QLoRA rounds them, too), and no outlier column is
left out. An adapter is merged first, with what its init took from the base: what is rounded is what
somebody deploys.
"""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from loku_exp.attacks.weights import attackable, put_back
from loku_exp.errors import ModelError
from loku_exp.models.load import linear_layers, text_part, weight_matrix
from loku_exp.runtime.cache import digest
from loku_exp.runtime.knobs import Count, Levels
from loku_exp.runtime.rounding import rounded
from loku_exp.subject import Subject

QUANTISE_FORMAT = 2  # raise by hand whenever an unchanged attack gives other weights


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


@torch.no_grad()
def _load(
    subject: Subject, bits: int, levels: Levels, group: int | None, dtype: str | None = None
) -> Any:
    whole = subject.load(dtype=dtype)  # type: ignore[misc]  # a log is not attacked
    model = attackable(whole)
    matrices = [weight_matrix(layer) for layer in linear_layers(model).values()]
    matrices += [matrix for stacked in _expert_matrices(model) for matrix in stacked]
    if not matrices:
        raise ModelError(
            f"this {type(model).__name__} has no linear layer but its head, so there is nothing to quantise"
        )
    for weight in matrices:
        weight.copy_(rounded(weight, bits, levels, group))
    return put_back(whole, model)


def _expert_matrices(model: nn.Module) -> list[Tensor]:
    """Return the matrices of stacked experts that read text, (experts, out, in) each: views.

    Raises:
        ModelError: which way round they are stored is not known, as of JetMoE's.
    """
    found = []
    for module in text_part(model).modules():
        kind = type(module).__name__
        stacked = [p for p in module.parameters(recurse=False) if p.ndim == 3]
        if hasattr(module, "is_transposed"):  # transformers says it of most
            found += [p.mT if module.is_transposed else p for p in stacked]
        elif kind == "Llama4TextExperts":
            found += [p.mT for p in stacked]
        elif "Expert" in kind and any(p.ndim > 1 for p in module.parameters(recurse=False)):
            raise ModelError(
                f"the experts of a {type(model).__name__} ({kind}) cannot be taken apart"
            )
    return found
