"""Add the squared gradients of groups of examples while a backward pass runs.

A layer that is called text by text (see `called_by_text`) has its gradients formed in hooks, one group at
a time; the gradients of others are autograd's, and a pass has one group.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from loku_exp.data.batches import Padded, pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.errors import ModelError
from loku_exp.losses.scores import Scores
from loku_exp.losses.terms import cross_entropy
from loku_exp.models.load import LinearLayer, weight_matrix


@dataclass(frozen=True)
class Pass:
    """The examples of one forward pass: whole groups.

    Attributes:
        batch: all of them, padded.
        lengths: of each example, in tokens.
        groups: rows of each group.
        counts: labels of each group.
    """

    batch: Padded
    lengths: list[int]
    groups: list[slice]
    counts: list[int]

    def loss(self, model: nn.Module) -> Tensor:
        """Return the sum over the groups of their token-mean cross-entropy."""
        scores = Scores(model, self.batch)
        size = self.groups[0].stop
        share = [1 / self.counts[row // size] for row in range(len(self.lengths))]
        sums = scores.sequence_sums(scores.token_term(cross_entropy))
        return (sums * torch.tensor(share, device=sums.device)).sum()


def passes(
    sequences: list[Sequence], group_size: int, micro_batch_size: int, device: torch.device
) -> Iterator[Pass]:
    """Cut sequences into passes of whole groups, at least one each; see `diagonal_fisher`."""
    per_pass = group_size * max(1, micro_batch_size // group_size)
    for first in range(0, len(sequences), per_pass):
        rows = sequences[first : first + per_pass]
        groups = [slice(start, start + group_size) for start in range(0, len(rows), group_size)]
        yield Pass(
            batch=to_device(pad(rows), device),
            lengths=[len(row.ids) for row in rows],
            groups=groups,
            counts=[sum(row.num_labels for row in rows[group]) for group in groups],
        )


@contextmanager
def accumulating(
    layers: dict[str, LinearLayer], fisher: dict[str, Tensor], one: Pass, by_text: set[str]
) -> Iterator[None]:
    """Add ``n_g * gradient_g^2`` of each group to each layer's sum during the backward pass.

    Args:
        layers: the linear layers, by name.
        fisher: their sums, (out, in) each.
        one: the pass inside; it has one group where a layer is not called text by text.
        by_text: see `called_by_text`; the others' gradients are autograd's.

    Raises:
        ModelError: a layer is called in another way than when it was looked at.
    """
    others = {name: layer for name, layer in layers.items() if name not in by_text}
    handles = [_watch(layers[name], name, fisher[name], one) for name in layers if name in by_text]
    try:
        with _own_gradients(others, fisher, one.counts):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(layer: LinearLayer, name: str, total: Tensor, one: Pass) -> RemovableHandle:
    """Have a layer that is called text by text add to its sum."""
    seen: list[int] = []

    def forward_hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Wait for the gradient of the output."""
        seen.append(inputs[0]._version)
        if len(seen) > 1 or inputs[0].shape[:2] != one.batch["input_ids"].shape:
            raise ModelError(
                f"the Fisher information of {name} cannot be measured: it was called "
                f"{len(seen)} times in a pass, with an input of shape {tuple(inputs[0].shape)}, and "
                "otherwise when it was first looked at; use init=vanilla"
            )
        x = inputs[0].detach()
        output.register_hook(lambda slope: add(x, slope))

    def add(x: Tensor, slope: Tensor) -> None:
        """Add the squares of each group's gradient, n times."""
        if x._version != seen[0]:
            raise ModelError(
                f"the Fisher information of {name} cannot be measured: its input is overwritten after the "
                "call; use init=vanilla"
            )
        for group, count in zip(one.groups, one.counts, strict=True):
            rows = range(*group.indices(len(one.lengths)))
            if len(rows) == 1:  # without the padding, whose output gradient is zero
                row, length = rows[0], one.lengths[rows[0]]
                mine = (slope[row, :length], x[row, :length])
            else:
                mine = (slope[group].flatten(0, 1), x[group].flatten(0, 1))
            gradient = (mine[0].T @ mine[1]).float()
            total.addcmul_(gradient, gradient, value=count)

    return layer.register_forward_hook(forward_hook)


@contextmanager
def _own_gradients(
    layers: dict[str, LinearLayer], fisher: dict[str, Tensor], counts: list[int]
) -> Iterator[None]:
    """Let autograd form the gradients of these weights; each is added and dropped as it is whole."""
    before = {layer.weight: layer.weight.grad for layer in layers.values()}
    handles = []
    for name, layer in layers.items():
        (count,) = counts

        def add(
            weight: Tensor,
            layer: LinearLayer = layer,
            total: Tensor = fisher[name],
            count: int = count,
        ) -> None:
            """Add the square of this weight's gradient, n times."""
            gradient = weight_matrix(layer, weight.grad).float()
            total.addcmul_(gradient, gradient, value=count)
            weight.grad = None

        layer.weight.grad = None
        layer.weight.requires_grad_()
        handles.append(layer.weight.register_post_accumulate_grad_hook(add))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for weight, gradient in before.items():
            weight.grad = gradient
            weight.requires_grad_(False)
