"""What transformers' Trainer needs around it: the model's device, finite gradients, its own forward."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback, TrainingArguments

from loku_exp.errors import TrainingError
from loku_exp.runtime import distributed as parallel


class FiniteUpdates(TrainerCallback):
    """Stops before an update that would write NaN into the weights.

    A finite loss can have such a gradient (log of 0, 0 / 0 in a backward pass), and clipping spreads it.
    The device is asked once an update, never in a micro-batch, where it would have to be waited for.

    Args:
        losses: those of the micro-batches since the last update; emptied here.
        unlearns: whether the loss is one of unlearning, of which there are bounded ones.
    """

    def __init__(self, losses: list[torch.Tensor], unlearns: bool):
        self.losses = losses
        bounded = ", or use a bounded loss (loss=ihl)" if unlearns else ""
        self.way_out = f"Lower the learning rate{bounded}"

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Look at the losses and at the norm of all gradients.

        Raises:
            TrainingError: one of them is not finite.
        """
        loss = torch.stack(self.losses).mean()
        self.losses.clear()
        norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        values = dict(zip(("loss", "norm"), torch.stack([loss, norm]).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"the loss is {values['loss']} at update {state.global_step + 1}; {_kept(state)}. "
                f"{self.way_out}"
            )
        if not math.isfinite(values["norm"]):
            raise TrainingError(
                f"the gradient is not finite at update {state.global_step + 1} though the loss is; "
                f"{_kept(state)}. {self.way_out}; in a loss of your own look for log(0), 0 / 0 or sqrt(0)"
            )


@contextmanager
def own_forward(model: nn.Module) -> Iterator[None]:
    """Give a model its own `forward` back after training.

    With autocast, accelerate leaves the model's `forward` wrapped in it for good, so evaluations after
    training would compute in another precision than the model reloaded. Its own `unwrap_model` strips
    decorators of transformers as well.
    """
    names = ("forward", "_original_forward")
    before = {name: vars(model)[name] for name in names if name in vars(model)}
    try:
        yield
    finally:
        for name in names:
            vars(model).pop(name, None)
        vars(model).update(before)


def on_device_of_model(arguments: TrainingArguments, device: torch.device) -> TrainingArguments:
    """Pin a Trainer to the device the model is on.

    By itself it takes the first accelerator, and with several visible ones it splits batches over all.
    Under torchrun it takes the one with this process's number, as the model does.
    """
    if parallel.size() > 1:
        return arguments
    if device.type == "cuda":
        torch.cuda.set_device(device)
    vars(arguments)["_setup_devices"] = device  # a cached property: what `arguments.device` returns
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


class EveryMatrixLearns(TrainerCallback):
    """Checks at the first update that every trained matrix of an adapter got a gradient, or some weight.

    Args:
        expected: whether the loss says that it reaches all of them; asked then.
    """

    def __init__(self, expected: Callable[[], bool]):
        self.expected = expected

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Look at the gradients once.

        A's gradient is exactly zero where B is (vanilla init), and B's where A is, so of a pair only one
        must be non-zero.
        """
        if state.global_step > 0:
            return
        some = any(_some(p.grad) for p in model.parameters() if p.requires_grad)
        if some and not (self.expected() and isinstance(model, PeftModel)):
            return
        if not isinstance(model, PeftModel):
            raise TrainingError(
                "no weight got a gradient at the first update: the loss reaches none, or is flat where the "
                "model is; see its weights"
            )
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        without = [name for name, gradient in gradients.items() if gradient is None]
        without += [
            name
            for name, gradient in gradients.items()
            if gradient is not None
            and not gradient.any()
            and not _some(gradients.get(_partner(name)))
        ]
        if without:
            raise TrainingError(
                f"{len(without)} of {len(gradients)} adapter matrices got no gradient at the first "
                f"update, e.g. {without[0]}; the loss does not reach them. A loss that leaves layers out "
                "on purpose says so: LossTerms(..., reaches_all=False)"
            )


class WeightsMove(TrainerCallback):
    """Checks at the end that training has changed some weight, where there were gradients."""

    pulled = False  # by a gradient

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Take the weights' sums."""
        self.step, self.before = state.global_step, _sums(model)

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Note whether there was a gradient, until there was one."""
        self.pulled = self.pulled or any(_some(p.grad) for p in model.parameters())

    def on_train_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Compare.

        Raises:
            TrainingError: all sums are the same bits, so what was trained is what there was before.
        """
        if self.pulled and state.global_step > self.step and torch.equal(self.before, _sums(model)):
            raise TrainingError(
                f"{state.global_step - self.step} updates with gradients changed no weight: the learning "
                f"rate ({args.learning_rate:g}) is too small for these weights: raise it; or something "
                "puts them back"
            )


def _sums(model: nn.Module) -> torch.Tensor:
    """Return the sum and the norm of every trained weight, in float64."""
    trained = [p.detach() for p in model.parameters() if p.requires_grad]
    exact = {"dtype": torch.float64}
    pairs = [(p.sum(**exact), torch.linalg.vector_norm(p, **exact)) for p in trained]
    return torch.stack([value for pair in pairs for value in pair])


def _kept(state: Any) -> str:
    return "snapshots made before are kept" if state.global_step else "nothing was trained yet"


def _partner(name: str) -> str:
    """Return the name of a factor's other factor."""
    a, b = "lora_A", "lora_B"
    return name.replace(a, b) if a in name else name.replace(b, a)


def _some(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())
