"""The Fisher information one block at a time: for models whose activations or sums do not fit.

`hooks` keeps the activations of all blocks for its backward pass and the sums of all layers until the
last text. Here nothing but the inputs of the blocks is kept. With h_l the input of block l and
``h_{l+1} = f_l(h_l)``, the backward pass of the whole model is the recursion::

    s_l = J_l(h_l)^T s_{l+1},    s_L = the gradient of the loss on the last block's output

and what a layer inside block l adds to its sum needs h_l and s_{l+1} alone. So one forward pass without a
graph keeps every h_l; then, from the last block to the first, each text's block is computed once more,
with a graph of that block only, and s_{l+1} is replaced by s_l. A block's sums over both sets are whole
when it has seen all texts; they go to the reducer and are dropped.

Both compute the same operations on the same numbers in the same order: bitwise equal on a CPU in fp32.
It holds where a block's input is the block before's output and nothing else flows between blocks; on a
few random tokens `cannot_sweep` compares the slope this ends with to that of the whole backward pass.

Held beside the weights, with N tokens, width d, L blocks: the inputs, ``N d (L + 1)`` numbers of the
model's precision, in main memory; the sums of one block, 8 bytes a weight, and one text's activations
inside one block, where the model is. One more forward pass of the blocks: 8 instead of 6 FLOPs a weight
and token, weight gradients included.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from loku_exp.data.records import Sequence
from loku_exp.errors import ModelError
from loku_exp.fisher.accumulate import Pass, accumulating, passes
from loku_exp.fisher.hooks import Reducer, frozen, told_apart
from loku_exp.models.load import LinearLayer, weight_matrix
from loku_exp.runtime.logs import Progress, progress

PROBE = 8  # tokens
NOISE = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the slope's norm
NOISE_OF_HALF_PRECISION = 0.1
NOT_ONCE = "the layer sweep needs every block of a {model} to run once, in order"


@dataclass
class _Swept:
    """A pass on its way back through the blocks: what each block was called with, and the slope."""

    one: Pass
    calls: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    slope: Tensor = field(default_factory=lambda: torch.zeros(0))


def sweep_fisher(
    model: nn.Module,
    layers: dict[str, LinearLayer],
    forget: list[Sequence],
    retain: list[Sequence],
    reducer: Reducer,
    *,
    group_size: int = 1,
    micro_batch_size: int = 1,
) -> None:
    """Do what `hooks.reduce_fisher` does, block by block from the last one.

    Args:
        model: in evaluation mode; left as it was.
        layers: the linear layers, by name; all inside its blocks.
        forget: at least one sequence.
        retain: at least one sequence.
        reducer: keeps what it needs.
        group_size: examples whose gradient is averaged before squaring.
        micro_batch_size: examples per forward pass where groups are smaller; changes no number.

    Raises:
        ModelError: the model is not one list of blocks that holds these layers and hands on nothing but
            hidden states.
    """
    device = next(model.parameters()).device
    blocks = blocks_of(model, layers)
    reason = cannot_sweep(model, layers)
    if reason is not None or blocks is None:
        raise ModelError(f"{reason}; set init.fisher_pass=hooks")
    by_text, micro_batch_size = told_apart(model, layers, group_size, micro_batch_size)
    with frozen(model):
        of_passes = [
            list(passes(rows, group_size, micro_batch_size, device)) for rows in (forget, retain)
        ]
        with progress(sum(map(len, of_passes)), "fisher forward", "pass") as bar:
            sets = [[_forward(model, blocks, one, bar) for one in some] for some in of_passes]
        with progress(len(blocks), "fisher sweep", "block") as bar:
            for block in reversed(blocks):
                inside = {id(module) for module in block.modules()}
                measured = {name: layer for name, layer in layers.items() if id(layer) in inside}
                of_forget, of_retain = (_of_block(block, measured, some, by_text) for some in sets)
                for name in measured:
                    reducer(name, of_forget.pop(name), of_retain.pop(name))
                bar.update(1)


def _of_block(
    block: nn.Module, measured: dict[str, LinearLayer], swept: list[_Swept], by_text: set[str]
) -> dict[str, Tensor]:
    """Return the Fisher of a block's layers on a set, whose slopes it moves to the block's input."""
    device = swept[0].one.batch["input_ids"].device
    fisher = {
        name: torch.zeros(weight_matrix(layer).shape, dtype=torch.float32, device=device)
        for name, layer in measured.items()
    }
    for one in swept:
        _backward(block, measured, fisher, one, by_text)
    total = sum(sum(one.one.counts) for one in swept)
    return {name: value.div_(total) for name, value in fisher.items()}


def blocks_of(model: nn.Module, layers: dict[str, LinearLayer]) -> list[nn.Module] | None:
    """Return the model's list of blocks that holds all these layers; None where there is none."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            inside = {id(part) for part in module.modules()}
            if all(id(layer) in inside for layer in layers.values()):
                return list(module)
    return None


def cannot_sweep(model: nn.Module, layers: dict[str, LinearLayer]) -> str | None:
    """Return why the sweep would be wrong for a model, or None; asked with a few random tokens."""
    blocks = blocks_of(model, layers)
    if blocks is None:
        return (
            f"the layer sweep needs a {type(model).__name__} to hold its linear layers in one list of "
            "blocks, and it does not"
        )
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = tuple(torch.randint(vocabulary, (PROBE,), generator=generator).tolist())
    (one,) = passes([Sequence(ids, ids)], 1, 1, device)
    with frozen(model):
        try:
            expected = _slope(model, blocks[0], one)
            swept = _forward(model, blocks, one)
            for block in reversed(blocks):
                _backward(block, {}, {}, swept, set())
        except _Unswept as error:
            return str(error)
    difference = (swept.slope.to(device) - expected).float().norm() / expected.float().norm()
    if difference <= NOISE.get(expected.dtype, NOISE_OF_HALF_PRECISION):
        return None
    return (
        f"the layer sweep is not right for a {type(model).__name__}, whose blocks hand on more than hidden "
        "states"
    )


class _Unswept(ModelError):
    """The blocks do not run as a sweep needs."""


def _slope(model: nn.Module, first: nn.Module, one: Pass) -> Tensor:
    """Return the gradient on the first block's input, by the whole backward pass."""
    leaf: list[Tensor] = []

    def begin_graph(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        leaf.append(_hidden(first, args).detach().requires_grad_())
        return (leaf[-1], *args[1:])

    handle = first.register_forward_pre_hook(begin_graph)
    try:
        one.loss(model).backward()
    finally:
        handle.remove()
    slope = leaf[0].grad if len(leaf) == 1 else None
    if slope is None:
        raise _Unswept(NOT_ONCE.format(model=type(model).__name__))
    return slope


def _hidden(block: nn.Module, args: tuple[Any, ...]) -> Tensor:
    if not args:
        raise _Unswept(
            f"the layer sweep finds no hidden states among the arguments of a {type(block).__name__}"
        )
    hidden: Tensor = args[0]
    return hidden


def _forward(
    model: nn.Module, blocks: list[nn.Module], one: Pass, bar: Progress | None = None
) -> _Swept:
    """Run a pass, keep what each block was called with, and the gradient on the last one's output."""
    swept = _Swept(one)
    last: list[Tensor] = []

    def keep(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        swept.calls.append((_hidden(block, args).detach().cpu(), args[1:], kwargs))

    def begin_graph(_: nn.Module, __: Any, output: Any) -> Any:
        hidden, others = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        last.append(hidden.detach().requires_grad_())
        return last[0] if others is None else (last[0], *others)

    handles = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks]
    handles.append(blocks[-1].register_forward_hook(begin_graph))
    try:
        one.loss(model).backward()
    finally:
        for handle in handles:
            handle.remove()
    if len(swept.calls) != len(blocks) or last[0].grad is None:
        raise _Unswept(NOT_ONCE.format(model=type(model).__name__))
    swept.slope = last[0].grad.cpu()
    if bar is not None:
        bar.update(1)
    return swept


def _backward(
    block: nn.Module,
    measured: dict[str, LinearLayer],
    fisher: dict[str, Tensor],
    swept: _Swept,
    by_text: set[str],
) -> None:
    """Compute a block once more, add its layers' squares, and move the slope to its input."""
    hidden, args, kwargs = swept.calls.pop()
    device = swept.one.batch["input_ids"].device
    x = hidden.to(device).requires_grad_()
    with accumulating(measured, fisher, swept.one, by_text):
        output = block(x, *args, **kwargs)
        output = output[0] if isinstance(output, tuple) else output
        output.backward(swept.slope.to(device))
    swept.slope = x.grad.cpu()  # type: ignore[union-attr]  # x is a leaf that requires one
