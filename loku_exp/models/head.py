"""The output head on labelled rows only, in chunks, never holding all logits.

The model runs as usual, but its head is shown no row; what it would have been shown is kept. Then
the rows that predict a label go through the head a chunk at a time. With a frozen head that costs
two matrix products: row i's value depends on its own logits only, so its gradient with respect to
hidden row i is formed in the forward pass and merely scaled in the backward pass. With a trained
head each chunk is recomputed in the backward pass. Neither holds an (N, V) tensor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from loku_exp.data.batches import Padded
from loku_exp.errors import ModelError

CHUNK_ELEMENTS = 256 * 50_257  # 51 MB of fp32 logits
_NOISE, _NOISE_OF_HALF_PRECISION = 1e-4, 2e-2  # of the norm of hidden states, by rounding
CHANGED = (
    "models of type {kind} change their logits after the output head (a cap, a factor); losses and scores "
    "here are computed from the head itself, so this model is not supported"
)
VOCABULARY_BLOCK = 1024  # rows of the head that a CPU multiplies at a time


Term = Callable[[Tensor, Tensor], Tensor]
"""From logits (n, V) in fp32 and labels (n,) to values (n,), row by row."""


@dataclass(frozen=True)
class ClosedForm:
    """A term with a closed-form gradient.

    Attributes:
        value: the term as a plain formula; autograd can differentiate it.
        with_gradient: returns ``(values (n,), gradient (n, V))`` and may overwrite the logits it gets;
            row i of the gradient is the derivative of value i with respect to logits row i.
    """

    value: Term
    with_gradient: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the values; see `Term`."""
        return self.value(logits, labels)


def label_positions(batch: Padded) -> tuple[Tensor, Tensor]:
    """Return rows and columns, (n,) each, of the positions that predict a label."""
    rows, columns = batch["predicting"]
    return rows, columns


def hidden_before_head(model: nn.Module, batch: Mapping[str, object], **options: Any) -> Tensor:
    """Return what the output head would be given, (B, T, d); the head is shown an empty slice.

    Args:
        model: a causal language model of transformers, or a wrapper around one.
        batch: with the ``input_ids`` and ``attention_mask`` of `Padded`.
        options: further arguments of the forward pass, e.g. a key-value cache to fill.
    """
    return _without_head(model, batch, **options)[0]


def hidden_by_layer(model: nn.Module, batch: Mapping[str, object]) -> tuple[Tensor, ...]:
    """Return the hidden states (B, T, d) after each layer, the embedding first; no logits are made."""
    _, output = _without_head(model, batch, output_hidden_states=True)
    states: tuple[Tensor, ...] = output.hidden_states
    return states


def _without_head(
    model: nn.Module, batch: Mapping[str, object], **options: Any
) -> tuple[Tensor, Any]:
    """Run a model whose head is shown an empty slice; return what it was not shown, and the output."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kept.append(arguments[0])
        return (arguments[0][:, :0], *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)  # type: ignore[operator]
    try:
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            **{"use_cache": False, **options},
        )
    finally:
        handle.remove()
    return kept[0], output


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """Check that a model's logits are what its output head gives, unchanged, and that it looks back only.

    Only then may rows be put through the head apart, and is the next token predicted rather than seen. The
    head is made to answer large known values, so that a cap or a factor behind it shows whatever the
    weights are; two texts that differ in their last token must look alike before it.

    Raises:
        ModelError: the model has no linear head of its own, changes what the head gives, or sees what comes
            after a token.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    given: list[Tensor] = []
    known: list[Tensor] = []

    def answer(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        given.append(inputs[0].float())
        known.append(torch.full_like(output, 64.0))
        known[0][..., ::2] = -64.0
        return known[0].clone()  # which may be changed in place

    kind = getattr(model.config, "model_type", type(model).__name__)
    if not isinstance(head, nn.Linear):
        raise ModelError(f"this {kind} model has no linear output head, which scoring works on")
    ids = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], device=head.weight.device)
    handle = head.register_forward_hook(answer)
    try:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    finally:
        handle.remove()
    if not known or logits.shape != known[0].shape or not torch.equal(logits, known[0].to(logits)):
        raise ModelError(CHANGED.format(kind=kind))
    if not given[0].isfinite().all():
        wider = "" if head.weight.dtype == torch.float32 else " (set model.dtype=float32)"
        raise ModelError(
            f"this {kind} model gives values that are not finite: its weights are damaged, or too large "
            f"for {str(head.weight.dtype).removeprefix('torch.')}{wider}"
        )
    one, other = given[0][:, :-1]
    noise = _NOISE if logits.dtype == torch.float32 else _NOISE_OF_HALF_PRECISION
    if not (one - other).norm() <= noise * one.norm():
        raise ModelError(
            f"this {kind} model sees what comes after a token, so it is not a causal language model; give "
            "one that predicts the next token"
        )


def apply_term(
    term: Term | ClosedForm,
    hidden: Tensor,
    labels: Tensor,
    head: nn.Linear,
    chunk_rows: int | None = None,
) -> Tensor:
    """Return the term of each row, (N,) fp32, differentiable.

    Args:
        term: from logits and labels to values.
        hidden: (N, d), what the head gets.
        labels: (N,) int64.
        head: the output embedding, (V, d), with or without bias.
        chunk_rows: logits of one chunk, (chunk_rows, V) fp32, are held at a time; None for 51 MB.
    """
    chunk_rows = chunk_rows or max(1, CHUNK_ELEMENTS // len(head.weight))
    if torch.is_grad_enabled() and not head.weight.requires_grad:
        weights = (head.weight, head.bias)
        return _FrozenHead.apply(hidden, labels, *weights, term, chunk_rows)

    def values(hidden: Tensor, labels: Tensor) -> Tensor:
        return term(logits_of(hidden, head), labels)

    chunks = list(zip(hidden.split(chunk_rows), labels.split(chunk_rows), strict=True))
    if len(chunks) == 1 or not torch.is_grad_enabled():
        return torch.cat([values(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(values, *chunk, use_reentrant=False) for chunk in chunks])


def logits_of(hidden: Tensor, head: nn.Linear) -> Tensor:
    """Return logits (n, V), computed in the head's precision (or autocast's), in fp32 or more."""
    return _at_least_fp32(_linear(hidden.to(head.weight.dtype), head.weight, head.bias))


def _linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``hidden @ weight.T + bias``.

    A CPU multiplies few rows by a whole vocabulary slowly; block by block it is 1.3 to 1.6 times faster
    (50,257 x 768, fp32, 32 to 256 rows), and equal to rounding.
    """
    device = hidden.device.type
    slow = (
        device == "cpu" and weight.dtype == torch.float32 and not torch.is_autocast_enabled(device)
    )
    if not slow or torch.is_grad_enabled():
        return functional.linear(hidden, weight, bias)
    logits = hidden.new_empty(len(hidden), len(weight))
    for start in range(0, len(weight), VOCABULARY_BLOCK):
        block = slice(start, start + VOCABULARY_BLOCK)
        of_block = None if bias is None else bias[block]
        logits[:, block] = functional.linear(hidden, weight[block], of_block)
    return logits


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _FrozenHead(torch.autograd.Function):
    """Values of a term, and with them each row's gradient with respect to its hidden row."""

    @staticmethod
    def forward(ctx, hidden, labels, weight, bias, term, chunk_rows):  # type: ignore[no-untyped-def]
        """Return a value a row; each chunk's gradient is formed with it."""
        device, dtype = hidden.device.type, weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        values = _at_least_fp32(hidden.new_empty(len(labels)))
        gradient = torch.empty_like(hidden)
        with torch.autocast(device, enabled=False):
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
            for start in range(0, len(labels), chunk_rows):
                chunk = slice(start, start + chunk_rows)
                logits = _at_least_fp32(_linear(hidden[chunk].to(dtype), weight, bias))
                values[chunk], slope = _value_and_slope(term, logits, labels[chunk])
                gradient[chunk] = slope.to(dtype) @ weight
                del logits, slope  # before the next chunk is made
        ctx.save_for_backward(gradient)
        return values

    @staticmethod
    def backward(ctx, grad_values):  # type: ignore[no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_values[:, None]).to(gradient.dtype), None, None, None, None, None


def _value_and_slope(
    term: Term | ClosedForm, logits: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return values (n,) and their gradient with respect to the logits, (n, V)."""
    if isinstance(term, ClosedForm):
        return term.with_gradient(logits, labels)
    with torch.enable_grad():
        values = term(logits.requires_grad_(), labels)
        (slope,) = torch.autograd.grad(values.sum(), logits)
    return values.detach(), slope
