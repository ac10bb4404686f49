"""What a model that has shapes alone says of itself: one on torch's meta device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

UNCHANGED = {  # what autograd notes of logits that are passed on as they are
    "ViewBackward0",
    "AliasBackward0",
    "SliceBackward0",
    "ToCopyBackward0",
    "CloneBackward0",
    "torch::autograd::AccumulateGrad",
}


@contextmanager
def runnable(model: Any) -> Iterator[None]:
    """Have a model without memory take the plain attention: the fused ones look at the mask's values."""
    attention = model.config._attn_implementation
    if next(model.parameters()).device.type == "meta":
        model.config._attn_implementation = "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = attention


def changes_logits(model: nn.Module) -> bool:
    """Return whether a model changes what its output head gives, as far as its shapes show.

    Shown is what autograd notes behind the head. A model that cannot be run without values, as experts
    whose work depends on them, counts as one that does not; `check_head` looks again, with values.
    """

    def answer(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        known = torch.empty_like(output, requires_grad=True)
        return known.view_as(known)  # may be changed in place

    head = model.get_output_embeddings()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        return False  # `check_head` says so
    ids = torch.zeros(1, 4, dtype=torch.int64, device=head.weight.device)
    handle = head.register_forward_hook(answer)
    try:
        with torch.enable_grad(), runnable(model):
            mask = torch.ones_like(ids)  # without one, positions are looked at
            step = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.grad_fn
    except Exception:  # in as many ways as there are architectures
        return False
    finally:
        handle.remove()
    while step is not None and (step.name() in UNCHANGED or _is_times_one(step)):
        step = step.next_functions[0][0] if step.next_functions else None
    return step is not None


def _is_times_one(step: Any) -> bool:
    """Return whether a step multiplies or divides by 1, as Granite's scale does where it is not set."""
    if step.name() not in ("MulBackward0", "DivBackward0"):
        return False
    factor = step._saved_other
    return factor is not None and factor.device.type == "cpu" and bool((factor == 1).all())
