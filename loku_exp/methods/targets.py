"""Which layers of a model an adapter goes on, and which it must not."""

import re
from typing import Any

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn

from loku_exp.errors import ModelError
from loku_exp.models.calls import bypassed
from loku_exp.models.load import LinearLayer, linear_layers

MAMBAS = ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h")  # as peft names them


def target_layers(model: nn.Module, targets: list[str]) -> list[str]:
    """Return the names of the linear layers an adapter with these targets is put on.

    Raises:
        ModelError: the model has no linear layers, a target matches none, or an adapter on one would do
            nothing or more than it should.
    """
    linear = linear_layers(model)
    if not linear:
        raise ModelError(
            f"an adapter goes on linear layers, and this {type(model).__name__} has none but its output "
            "head; train all weights with lora=none, or take another model"
        )
    if not targets:
        raise ModelError(
            "the list of LoRA targets is empty; name layers in model.lora_targets, [all-linear] for all"
        )
    unfit = _unfit(model, linear)
    fit = [name for name in linear if name not in unfit]
    if targets == ["all-linear"]:
        if fit:
            return fit
        raise ModelError(
            f"no adapter can go on this {type(model).__name__}: {unfit}; set lora=none"
        )
    for target in targets:
        mine = [name for name in linear if name.split(".")[-1] == target]
        if not mine:
            known = sorted({name.split(".")[-1] for name in linear})
            raise ModelError(
                f"LoRA target '{target}' matches no linear layer; this model has {', '.join(known)}"
            )
        if any(name in unfit for name in mine):
            name = next(name for name in mine if name in unfit)
            known = sorted({name.split(".")[-1] for name in fit})
            raise ModelError(
                f"LoRA target '{target}': {name} {unfit[name]}; an adapter can go on {', '.join(known)}"
            )
    return [name for name in linear if name.split(".")[-1] in targets]


def coverage(model: nn.Module, targets: list[str]) -> tuple[float, list[str]]:
    """Return how much of a model's body an adapter with these targets reaches, and what it does not.

    Args:
        model: not adapted; it may be without memory.
        targets: see `Adapter`.

    Returns:
        The share of the weights in matrices, embeddings and output head left aside; and the matrices that
        are not adapted, by what they are called in a block, e.g. ``mlp.experts.gate_up_proj``.

    Raises:
        ModelError: a target matches no layer.
    """
    linear, names = linear_layers(model), set(target_layers(model, targets))
    adapted = {id(linear[name].weight) for name in names}
    head = model.get_output_embeddings()  # type: ignore[operator]
    aside = {
        id(module.weight) for module in (*_of(model, nn.Embedding), head) if module is not None
    }
    reached = total = 0
    left_out = set()
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or id(parameter) in aside:
            continue
        total += parameter.numel()
        if id(parameter) in adapted:
            reached += parameter.numel()
        else:
            left_out.add(re.sub(r"^.*\.\d+\.", "", name).removesuffix(".weight"))
    return reached / total, sorted(left_out)


def _of(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def _unfit(model: Any, linear: dict[str, LinearLayer]) -> dict[str, str]:
    """Return the layers an adapter must not go on, with the reason."""
    owners: dict[int, list[str]] = {}
    for owner, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(owner)
    unfit = {}
    for name in bypassed(model, linear):
        unfit[name] = "is not called by the model, which takes its weight alone"
    for name in _taken_for_experts(model, linear):
        unfit[name] = "has a name that peft takes for an expert's, so it would adapt those"
    for name, layer in linear.items():
        others = [other for other in owners[id(layer.weight)] if other != name]
        if others:
            unfit[name] = f"shares its weight with {others[0]}"
        elif model.config.model_type in MAMBAS and name.split(".")[-1] == "out_proj":
            unfit[name] = "is taken apart by Mamba's fused kernels, so peft does not adapt it"
    return unfit


def _taken_for_experts(model: nn.Module, linear: dict[str, LinearLayer]) -> set[str]:
    """Return the layers that peft takes for experts of transformers 4, which had such names there."""
    config = LoraConfig(target_modules=list(linear))
    convert_peft_config_for_transformers(config, model, None)
    return set(linear) - set(config.target_modules or [])


def peft_names(model: nn.Module, names: list[str]) -> list[str]:
    """Return what peft is told to adapt: last parts of names where these mean no other module."""
    last = {name.split(".")[-1] for name in names}
    meant = {name for name, _ in model.named_modules() if name.split(".")[-1] in last}
    return sorted(last) if meant == set(names) else sorted(names)
