"""Attach an adapter without changing the model's function, fold it for the untouched base, check it."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from loku_exp.errors import ModelError
from loku_exp.inits.interface import Factors, Layer
from loku_exp.methods.targets import coverage as coverage
from loku_exp.methods.targets import peft_names, target_layers
from loku_exp.models.load import linear_layers, weight_matrix
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.whole_files import write_file


@dataclass(frozen=True)
class Adapter:
    """The shape of a low-rank adapter.

    Attributes:
        rank: of each layer's update.
        alpha: the update is ``alpha / rank * B @ A``.
        dropout: on the adapter's input.
        targets: last parts of layer names.
        base: what it trains on: None, the model as it is, or its weights in ``nf4``.
    """

    rank: int
    alpha: int
    dropout: float
    targets: list[str]
    base: Literal["nf4"] | None = None

    @property
    def scaling(self) -> float:
        """Return alpha / rank."""
        return self.alpha / self.rank

    def layers(self, model: nn.Module, seed: int) -> list[Layer]:
        """Return the adapted layers, for an init.

        Raises:
            ModelError: a target matches no layer, or the rank exceeds a layer's size.
        """
        linear = linear_layers(model)
        names = target_layers(model, self.targets)
        shapes = {name: weight_matrix(linear[name]).shape for name in names}
        smallest = min(names, key=lambda name: min(shapes[name]))
        if self.rank > min(shapes[smallest]):
            least, last = min(shapes[smallest]), smallest.split(".")[-1]
            others = sorted({name.split(".")[-1] for name in names} - {last})
            without = f", or leave it out: model.lora_targets.all=[{','.join(others)}]"
            raise ModelError(
                f"lora.rank={self.rank} exceeds layer {smallest} of shape {tuple(shapes[smallest])}; set "
                f"lora.rank to {least} or less{without if others else ''}"
            )
        return [
            Layer(
                name,
                weight_matrix(linear[name]).detach(),
                self.rank,
                self.scaling,
                derive(seed, name),
            )
            for name in names
        ]


def attach(
    model: PreTrainedModel, factors: dict[str, Factors], adapter: Adapter
) -> tuple[PeftModel, float]:
    """Put an adapter with these factors on a model, taking their product out of its weights.

    ``W_base + scaling * B @ A == W``, computed in fp32 from the A and B really used, then rounded to
    the model's precision. A and B are fp32 whatever the model is.

    Args:
        model: the target model; its weights are changed in place.
        factors: by layer name.
        adapter: its shape.

    Returns:
        The adapted model, and the share of the adapted weights' Frobenius norm that the adapter took.
    """
    linear = linear_layers(model)
    taken = total = 0.0
    for name, layer_factors in factors.items():
        weight = weight_matrix(linear[name]).data
        product = adapter.scaling * (layer_factors.b @ layer_factors.a).to(weight.device)
        taken += float(product.square().sum())
        total += float(weight.float().square().sum())
        if product.count_nonzero():
            weight.copy_(weight.float() - product)
    with torch.random.fork_rng(devices=[]):
        peft_model = get_peft_model(
            model,
            LoraConfig(
                r=adapter.rank,
                lora_alpha=adapter.alpha,
                lora_dropout=adapter.dropout,
                target_modules=peft_names(model, list(factors)),
                fan_in_fan_out=all(isinstance(linear[name], Conv1D) for name in factors),
                bias="none",
                task_type="CAUSAL_LM",
            ),
        )
    with torch.no_grad():
        for name, layer_factors in factors.items():
            module = peft_model.get_submodule(f"base_model.model.{name}")
            module.lora_A["default"].weight.copy_(layer_factors.a)  # type: ignore[union-attr,index]
            module.lora_B["default"].weight.copy_(layer_factors.b)  # type: ignore[union-attr,index]
    return peft_model, (taken / total) ** 0.5 if total else 0.0


def adapted_layers(model: nn.Module) -> list[str]:
    """Return the kinds of layers an adapter can go on, by the last part of their names; not the head."""
    return sorted({name.split(".")[-1] for name in target_layers(model, ["all-linear"])})


def merged(model: Any) -> Any:
    """Return a model with its adapter, if it has one, added to its weights; it is changed in place."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def save_factors(factors: dict[str, Factors], report: dict[str, Any], file: Path) -> None:
    """Write initial factors exactly, with what the init reported; they are never recomputed."""
    tensors = {}
    for name, layer_factors in factors.items():
        tensors[f"{name}.a"] = layer_factors.a.cpu().contiguous()
        tensors[f"{name}.b"] = layer_factors.b.cpu().contiguous()
    metadata = {"report": json.dumps(report)}
    write_file(file, lambda aside: save_file(tensors, aside, metadata=metadata))


def load_factors(file: Path) -> tuple[dict[str, Factors], dict[str, Any]]:
    """Read initial factors and the init's report."""
    with safe_open(file, "pt") as tensors:
        names = [key.removesuffix(".a") for key in tensors.keys() if key.endswith(".a")]  # noqa: SIM118
        report = json.loads(tensors.metadata()["report"])
        factors = {
            name: Factors(name, tensors.get_tensor(f"{name}.a"), tensors.get_tensor(f"{name}.b"))
            for name in names
        }
    return factors, report


def target_function(model: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which the model computes what it computes now, before any training.

    Under any init that is the target's function: the trained parameters (an adapter's A and B, or all
    weights) are swapped for their present values, without gradient and without dropout. The values wait
    in main memory until a loss first asks for them.
    """
    initial = {p: p.detach().to("cpu", copy=True) for p in model.parameters() if p.requires_grad}

    @contextmanager
    def context() -> Iterator[None]:
        """Compute the target's function inside."""
        trained = {parameter: parameter.data for parameter in initial}
        training = [module for module in model.modules() if module.training]
        try:
            for parameter, value in initial.items():
                initial[parameter] = parameter.data = value.to(parameter.device)
            for module in training:
                module.training = False
            torch.clear_autocast_cache()  # it knows a parameter, not its value
            with torch.no_grad():
                yield
        finally:
            torch.clear_autocast_cache()
            for module in training:
                module.training = True
            for parameter, value in trained.items():
                parameter.data = value

    return context


def fold(model: PeftModel, factors: dict[str, Factors], adapter: Adapter, folder: Path) -> None:
    """Write an adapter that plain peft can load on the *untouched* target.

    With base ``W - s B0 A0`` and adapter B, A: ``W + s [B, -B0] [A; A0]``, rank 2r, the same s. Where
    B0 is zero the adapter itself will do.

    Args:
        model: the trained model.
        factors: A0 and B0.
        adapter: its shape.
        folder: where to.
    """
    if not any(bool(f.b.count_nonzero()) for f in factors.values()):
        model.save_pretrained(str(folder))
        return
    state: dict[str, Tensor] = get_peft_model_state_dict(model)
    for name, initial in factors.items():
        key = f"base_model.model.{name}"
        a, b = state[f"{key}.lora_A.weight"], state[f"{key}.lora_B.weight"]
        state[f"{key}.lora_A.weight"] = torch.cat([a, initial.a.to(a)])
        state[f"{key}.lora_B.weight"] = torch.cat([b, -initial.b.to(b)], dim=1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.cpu().contiguous() for k, v in state.items()}, folder / "adapter_model.safetensors"
    )
    config: Any = copy.deepcopy(model.peft_config["default"])
    config.r, config.lora_alpha = 2 * adapter.rank, 2 * adapter.alpha
    config.inference_mode = True
    config.save_pretrained(str(folder))
