"""Exact diagonal Fisher information of linear weights, from hooks, without keeping parameter gradients.

Only activations are back-propagated. Each layer's weight gradient is formed in its hook from the
layer's input and output gradient, one group of examples at a time, squared, added and dropped. Where an
architecture calls a layer in another way (see `called_by_text`), autograd forms the gradient of that
weight, and a pass has one group.

Estimator (csm9493/efficient-llm-unlearning, ``TOFU/measure_importance.py``)::

    F = sum_g n_g * (grad of the token-mean cross-entropy of group g)^2 / sum_g n_g

with n_g the labels of group g. The released code has groups of a micro-batch (4 examples in its
script); groups of one example give the empirical Fisher information. They are different estimators.
Deviation: sums are fp32 (the released code adds in the model's bf16).

Beside the weights this holds the sums of one set, 4 bytes a measured weight, where the model is; those
of the other set wait in main memory. `sweep_fisher` gives the same in far less.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from loku_exp.data.records import Sequence
from loku_exp.fisher.accumulate import accumulating, passes
from loku_exp.models.calls import called_by_text
from loku_exp.models.load import LinearLayer, weight_matrix
from loku_exp.runtime.logs import progress

Reducer = Callable[[str, Tensor, Tensor], None]
"""Takes a layer's name and its Fisher on forget and retain set, (out, in) fp32 each."""


def reduce_fisher(
    model: nn.Module,
    layers: dict[str, LinearLayer],
    forget: list[Sequence],
    retain: list[Sequence],
    reducer: Reducer,
    *,
    group_size: int = 1,
    micro_batch_size: int = 1,
) -> None:
    """Measure the Fisher of all layers on both sets and hand it to a reducer, layer by layer.

    Args:
        model: in evaluation mode; left as it was.
        layers: the linear layers, by name.
        forget: at least one sequence.
        retain: at least one sequence.
        reducer: keeps what it needs; nothing else of the two tensors is kept.
        group_size: examples whose gradient is averaged before squaring; 1: per example.
        micro_batch_size: examples per forward pass where groups are smaller; changes no number.
    """
    sizes = {"group_size": group_size, "micro_batch_size": micro_batch_size}
    of_forget = diagonal_fisher(model, layers, forget, **sizes, name="forget")
    parked = {name: value.cpu() for name, value in of_forget.items()}
    del of_forget
    of_retain = diagonal_fisher(model, layers, retain, **sizes, name="retain")
    for name in layers:
        value = of_retain.pop(name)
        reducer(name, parked.pop(name).to(value.device), value)


def diagonal_fisher(
    model: nn.Module,
    layers: dict[str, LinearLayer],
    sequences: list[Sequence],
    *,
    group_size: int = 1,
    micro_batch_size: int = 1,
    name: str = "",
) -> dict[str, Tensor]:
    """Return the Fisher of each layer's weight, (out, in) fp32; see the module's formula.

    Args:
        model: any causal language model of transformers.
        layers: the linear layers, by name.
        sequences: at least one, each with a label.
        group_size: examples whose gradient is averaged before squaring.
        micro_batch_size: examples per forward pass, rounded up to whole groups; a group where a layer is
            not called text by text.
        name: what the progress bar calls the set.
    """
    device = next(model.parameters()).device
    fisher = {
        layer: torch.zeros(weight_matrix(module).shape, dtype=torch.float32, device=device)
        for layer, module in layers.items()
    }
    total = 0
    by_text, micro_batch_size = told_apart(model, layers, group_size, micro_batch_size)
    with (
        _gradients_from_the_embedding_on(model),
        progress(len(sequences), f"fisher {name}".strip(), "text") as bar,
    ):
        for one in passes(sequences, group_size, micro_batch_size, device):
            with accumulating(layers, fisher, one, by_text):
                one.loss(model).backward()
            total += sum(one.counts)
            bar.update(len(one.lengths))
    return {layer: value.div_(total) for layer, value in fisher.items()}


def told_apart(
    model: nn.Module, layers: dict[str, LinearLayer], group_size: int, micro_batch_size: int
) -> tuple[set[str], int]:
    """Return the layers that are called text by text, and how many texts a pass may have then."""
    with _gradients_from_the_embedding_on(model):
        by_text = called_by_text(model, layers)
    return by_text, micro_batch_size if by_text == layers.keys() else group_size


def row_weights(
    forget: Tensor, retain: Tensor, epsilon: float, *, relative: bool = False
) -> Tensor:
    """Return FILA's weight of each output row, ``sqrt(sum_j F_forget / (F_retain + epsilon))``.

    Args:
        forget: (out, in) Fisher on the forget set.
        retain: (out, in) Fisher on the retain set.
        epsilon: absolute, or a share of the mean retain Fisher.
        relative: whether it is a share.
    """
    return (forget / (retain + absolute_epsilon(retain, epsilon, relative=relative))).sum(1).sqrt()


def absolute_epsilon(retain: Tensor, epsilon: float, *, relative: bool) -> float:
    """Return the epsilon that is added to a layer's retain Fisher."""
    return epsilon * float(retain.mean()) if relative else epsilon


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter take a gradient."""
    required = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, value in required.items():
            parameter.requires_grad_(value)


@contextmanager
def _gradients_from_the_embedding_on(model: nn.Module) -> Iterator[None]:
    """Let gradients flow through activations only: parameters frozen, embeddings' output not."""
    embeddings = model.get_input_embeddings()  # type: ignore[operator]

    def begin(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output.requires_grad_().clone()  # CTRL scales it in place, which no leaf allows

    handle = embeddings.register_forward_hook(begin)
    try:
        with frozen(model):
            yield
    finally:
        handle.remove()
