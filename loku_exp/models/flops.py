"""FLOPs of training and of the Fisher pass; a multiply-add counts as two.

One scored batch of B texts padded to T tokens, with n labelled tokens, costs forward and backward::

    body       2 B T   sum over linear layers of  in * out         * (1 + x + w)
    attention  2 B T^2 sum over its two products of  heads * width * (1 + a + b)
    head       2 n d V * 2        frozen: logits and the rows' gradient
               2 n d V * (3 or 4) trained: logits, rows' and weights' gradient; 4 where it is chunked,
                                  each chunk being computed anew in the backward pass

A term in brackets is 1 where that operand needs a gradient, else 0: w where the weight is trained, x
where something trained lies before the input, a and b likewise. With frozen embeddings the inputs of
the first block have x = 0; with LoRA on queries and values only, its keys have b = 0. The products and
these flags are read off one forward pass of two tokens, so no architecture is known by name. An adapted
layer counts as three: its weight, A and B. Padding is computed and counted; the plain head has n = B T.

Gradient checkpointing adds one more forward pass of body and attention; that is an upper bound, as
torch stops before a block's last product where nothing in the backward pass needs it.

Left out: softmax, norms, activations, biases, dropout, scaling, masks, residuals, the terms on the
logits, embedding look-up, rotary angles, convolutions, optimiser, gradient clipping. ``sdpa`` is counted
like ``eager``, T by T in both directions, without the recomputation inside a fused kernel; products inside
``flash_attention_2`` are not seen. A loss that scores a batch several times, not at all, or by the
target model, is counted as if it did so once.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from loku_exp.data.batches import Padded, pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.models.head import CHUNK_ELEMENTS, hidden_before_head
from loku_exp.models.load import LinearLayer

PROBE = 2  # tokens of the forward pass the products are read off
MATMULS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)


@dataclass(frozen=True)
class StepFlops:
    """The module's formula for one model.

    Attributes:
        token: multiply-adds of all linear layers, forward, per token.
        token_backward: the same, backward.
        pair: multiply-adds of all attention, forward, per pair of tokens.
        pair_backward: the same, backward.
        recomputes: whether the blocks are checkpointed.
        head: the output head.
    """

    token: int
    token_backward: int
    pair: int
    pair_backward: int
    recomputes: bool
    head: nn.Linear

    @classmethod
    def of(cls, model: nn.Module) -> "StepFlops":
        """Read the formula off a model, adapted or not, by a forward pass of two tokens.

        Args:
            model: what is trained in it, and whether it is checkpointed, as in training.
        """
        device = next(model.parameters()).device
        probe = to_device(pad([Sequence((0,) * PROBE, (0,) * PROBE)]), device)
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad(), _Products() as seen:
            hidden_before_head(model, probe)
        return cls(
            **seen.sums,
            recomputes=any(getattr(m, "gradient_checkpointing", False) for m in model.modules()),
            head=model.get_output_embeddings(),  # type: ignore[operator]
        )

    def flops(self, batch: Padded, *, plain: bool = False, chunk_rows: int | None = None) -> int:
        """Return the FLOPs of one forward and backward pass of a batch whose head is applied once.

        Args:
            batch: right-padded.
            plain: the head computes all logits, see `Scores`.
            chunk_rows: of the head, see `apply_term`.
        """
        texts, length = batch["input_ids"].shape
        token = (1 + self.recomputes) * self.token + self.token_backward
        pair = (1 + self.recomputes) * self.pair + self.pair_backward
        rows = texts * length if plain else batch["predicting"].shape[1]
        chunk_rows = chunk_rows or max(1, CHUNK_ELEMENTS // len(self.head.weight))
        recomputed = not plain and rows > chunk_rows
        products = 3 + recomputed if self.head.weight.requires_grad else 2
        head = products * rows * self.head.weight.numel()
        return 2 * (texts * length * token + texts * length**2 * pair + head)


def fisher_flops(
    model: nn.Module,
    layers: dict[str, LinearLayer],
    sequences: list[Sequence],
    *,
    group_size: int = 1,
    micro_batch_size: int = 1,
    sweep: bool = False,
) -> int:
    """Return the FLOPs of `diagonal_fisher` on these sequences.

    As a step with a frozen head and all weights frozen, but gradients through all activations
    (x = a = b = 1, w = 0), plus one weight gradient for each layer and group: ``2 in out`` for each
    token of the text, or for each padded token where a group has several texts. Squaring and adding
    are left out.

    Args:
        model: the target model, not adapted.
        layers: whose Fisher is measured.
        sequences: of one set.
        group_size: as `diagonal_fisher` has it.
        micro_batch_size: as `diagonal_fisher` has it.
        sweep: block by block, which runs the body forward once more.
    """
    step = StepFlops.of(model)
    measured = sum(layer.weight.numel() for layer in layers.values())
    per_pass = group_size * max(1, micro_batch_size // group_size)
    total = 0
    for start in range(0, len(sequences), per_pass):
        rows = sequences[start : start + per_pass]
        lengths = [len(row.ids) for row in rows]
        padded = len(rows) * max(lengths)
        total += (2 + sweep) * padded * step.token
        total += (3 + sweep) * padded * max(lengths) * step.pair
        total += 2 * sum(row.num_labels for row in rows) * step.head.weight.numel()
        for first in range(0, len(rows), group_size):
            group = lengths[first : first + group_size]
            total += measured * (group[0] if len(group) == 1 else len(group) * max(lengths))
    return 2 * total


class _Products(TorchFunctionMode):
    """Adds up the matrix products of the probe, and of those their gradients will need."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = {"token": 0, "token_backward": 0, "pair": 0, "pair_backward": 0}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear:
            x, weight = args[:2]
            size = x.numel() * len(weight) // PROBE  # none in the head, which is shown no row
            self._multiply(size, x.requires_grad + weight.requires_grad)
        elif func is torch.addmm:  # GPT-2's layers: the weight is (in, out)
            _, x, weight = args[:3]
            size = x.numel() * weight.shape[1] // PROBE
            self._multiply(size, x.requires_grad + weight.requires_grad)
        elif func in MATMULS and args[0].shape[-1] > 1:  # 1: the outer product of rotary angles
            a, b = args[:2]
            self._matmul(a, b)
        elif func is Tensor.baddbmm:  # BLOOM's scores, on top of its bias
            self._matmul(kwargs["batch1"], kwargs["batch2"])
        elif func is functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            scores, behind = query[..., 0].numel() * PROBE, query.requires_grad + key.requires_grad
            self._attend(scores * query.shape[-1], behind)
            self._attend(scores * value.shape[-1], (behind > 0) + value.requires_grad)
        return func(*args, **(kwargs or {}))

    def _matmul(self, a: Tensor, b: Tensor) -> None:
        """Add a product: attention's where tokens meet, else (Falcon's layers, a state) a token's."""
        size, gradients = a.numel() * b.shape[-1], a.requires_grad + b.requires_grad
        if b.ndim == 2 or a.shape[-2] != PROBE:
            self._multiply(size // PROBE, gradients)
        else:
            self._attend(size, gradients)

    def _multiply(self, size: int, gradients: int) -> None:
        self.sums["token"] += size
        self.sums["token_backward"] += size * gradients

    def _attend(self, size: int, gradients: int) -> None:
        self.sums["pair"] += size // PROBE**2
        self.sums["pair_backward"] += size // PROBE**2 * gradients
