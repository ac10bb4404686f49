"""How a model uses its linear layers, read off one forward pass of two short texts.

Where a layer is called once with (B, T, in), row b of its input and of its output's gradient belongs to
text b, so hooks give every text's own gradient. Elsewhere nobody can say whose a row is: OPT calls its
feed-forward layers with (B T, in), an expert sees some of the tokens, a shared layer is called twice,
Mamba takes a weight without calling its layer. Such a weight's gradient is left to autograd, one group
of texts at a time; and an adapter on a layer that is not called would do nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.errors import ModelError
from loku_exp.models.head import hidden_before_head
from loku_exp.models.load import LinearLayer
from loku_exp.models.without_memory import runnable

TEXTS, TOKENS = 2, 3  # of the probe; different, so that (T, B, in) is not taken for (B, T, in)
Shapes = dict[str, list[tuple[int, ...]]]
"""By layer: of each call, the input's shape but its last part; empty where no gradient flows."""


def called_by_text(model: nn.Module, layers: dict[str, LinearLayer]) -> set[str]:
    """Return the layers that are called once with (B, T, in), and whose output hangs on the embedding.

    Args:
        model: in evaluation mode, its embedding's output requiring a gradient; left as it was.
        layers: the linear layers, by name.

    Raises:
        ModelError: two of them share one weight.
    """
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        other = owners.setdefault(id(layer.weight), name)
        if other != name:
            raise ModelError(
                f"the linear layers {other} and {name} share one weight, whose Fisher information belongs "
                "to neither alone; use init=vanilla, or lora=none"
            )
    shapes, _ = _calls(model, layers)
    return {name for name, seen in shapes.items() if seen == [(TEXTS, TOKENS)]}


def bypassed(model: Any, layers: dict[str, LinearLayer]) -> set[str]:
    """Return the layers whose weight a forward pass uses without calling them.

    Args:
        model: in evaluation mode. It may be without memory; where such a one cannot be run, as experts
            whose work depends on the values, nothing is found.
        layers: the linear layers, by name.
    """
    try:
        with runnable(model):
            return _bypassed(model, layers)
    except RuntimeError:
        if next(model.parameters()).device.type != "meta":
            raise
        return set()


def _bypassed(model: nn.Module, layers: dict[str, LinearLayer]) -> set[str]:
    shapes, _ = _calls(model, layers)
    silent = {name: layers[name].weight for name, seen in shapes.items() if not seen}
    if not silent:
        return set()
    required = {name: weight.requires_grad for name, weight in silent.items()}
    try:
        for weight in silent.values():
            weight.requires_grad_()
        _, hidden = _calls(model, layers)
        gradients = torch.autograd.grad(hidden.sum(), [*silent.values()], allow_unused=True)
    finally:
        for name, weight in silent.items():
            weight.requires_grad_(required[name])
    return {name for name, gradient in zip(silent, gradients, strict=True) if gradient is not None}


def _calls(model: nn.Module, layers: dict[str, LinearLayer]) -> tuple[Shapes, Tensor]:
    """Run the probe; return how each layer was called, and the hidden states before the head."""
    shapes: Shapes = {name: [] for name in layers}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            known = bool(inputs) and output.requires_grad
            shapes[name].append(tuple(inputs[0].shape[:-1]) if known else ())

        return note

    ids = tuple(range(TOKENS))
    batch = to_device(pad([Sequence(ids, ids)] * TEXTS), next(model.parameters()).device)
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            return shapes, hidden_before_head(model, batch)
    finally:
        for handle in handles:
            handle.remove()
