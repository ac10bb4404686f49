"""The training loop: transformers' Trainer with an objective over named batches.

Used twice: to fine-tune targets and references, and to unlearn. Only `compute_loss` is replaced;
batching lives in the stream, snapshots and checks in callbacks.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from loku_exp.config import OptimizationConfig
from loku_exp.data.batches import Stream, collate
from loku_exp.errors import TrainingError
from loku_exp.losses.scores import Context, LossTerms, Scores

log = logging.getLogger(__name__)
Objective = Callable[..., LossTerms]


@dataclass(frozen=True)
class Plan:
    """How long a training is, and where its epochs end.

    Attributes:
        updates: optimiser steps.
        updates_per_epoch: optimiser steps per pass over the first set, at least 1.
        batch_size: examples of each set per update.
    """

    updates: int
    updates_per_epoch: int
    batch_size: int

    @classmethod
    def of(cls, optimization: OptimizationConfig, num_rows: int) -> "Plan":
        """Plan as the official code does: ``int(epochs * rows) // batch_size`` updates.

        Raises:
            TrainingError: that is less than one update.
        """
        updates = int(optimization.epochs * num_rows) // optimization.batch_size
        if updates < 1:
            raise TrainingError(
                f"epochs={optimization.epochs} over {num_rows} examples is less than one update of "
                f"batch_size={optimization.batch_size}; lower batch_size or raise epochs"
            )
        return cls(updates, max(1, num_rows // optimization.batch_size), optimization.batch_size)

    @property
    def num_items(self) -> int:
        """Examples of each set over the whole training."""
        return self.updates * self.batch_size

    def snapshot_steps(self, every_epochs: int) -> list[int]:
        """Return the steps after which a snapshot is taken: epoch ends, and the last step."""
        every = every_epochs * self.updates_per_epoch
        return sorted({*range(every, self.updates + 1, every), self.updates})


@dataclass(frozen=True)
class ScoreOptions:
    """How batches are scored; see `Scores`."""

    plain: bool = False
    chunk_rows: int | None = None
    as_target: Context | None = None


class ObjectiveTrainer(Trainer):
    """A Trainer whose loss is an objective over named batches.

    Args:
        objective: takes one `Scores` per name in `inputs`.
        inputs: the batches the objective wants, by name.
        options: how they are scored.
        trainer: arguments of `transformers.Trainer`.
    """

    # compute_loss returns a micro-batch mean; the Trainer divides by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self, objective: Objective, inputs: tuple[str, ...], options: ScoreOptions, **trainer: Any
    ):
        super().__init__(**trainer)
        self._objective = objective
        self._inputs = inputs
        self._options = options
        self._parts: dict[str, list[Tensor]] = defaultdict(list)
        self._flops_per_token = _flops_per_token(trainer["model"])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the objective on a micro-batch; `inputs` is a `Batch`."""
        options = vars(self._options)
        scores = {name: Scores(model, inputs[name], **options) for name in self._inputs}
        terms = self._objective(**scores)
        total = terms.total
        if not torch.isfinite(total):
            raise TrainingError(
                f"the loss is {total.item()} at update {self.state.global_step + 1}; the last snapshot "
                "is kept. Lower the learning rate, or use a bounded loss (loss=ihl)"
            )
        self._parts["forget_loss"].append(terms.forget.detach())
        if terms.retain is not None:
            self._parts["retain_loss"].append(terms.retain.detach())
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the objective, averaged over the micro-batches of an update."""
        if "loss" in logs:
            for name, values in self._parts.items():
                logs[name] = torch.stack(values).mean().item()
            self._parts.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return the FLOPs of a micro-batch, see `_flops_per_token`."""
        tokens = sum(int(inputs[name]["attention_mask"].sum()) for name in self._inputs)
        return self._flops_per_token * tokens


class Progress(TrainerCallback):
    """A progress bar of updates with the latest losses.

    Args:
        description: what stands before the bar.
        position: line of the bar, where several processes draw one.
    """

    def __init__(self, description: str, position: int = 0):
        self.description = description
        self.position = position
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the bar, only on a terminal."""
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.description,
            unit="update",
            position=self.position,
            leave=self.position == 0,
            disable=None,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on by one update."""
        if self.bar is not None:
            self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the parts of the loss."""
        if self.bar is not None and logs:
            parts = {k.removesuffix("_loss"): v for k, v in logs.items() if k.endswith("_loss")}
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in parts.items()})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


def fit(
    model: PreTrainedModel | nn.Module,
    stream: Stream,
    objective: Objective,
    optimization: OptimizationConfig,
    plan: Plan,
    *,
    learning_rate: float,
    inputs: tuple[str, ...],
    options: ScoreOptions,
    folder: Path,
    seed: int,
    device: torch.device,
    callbacks: list[TrainerCallback],
    resume_from: Path | None = None,
    gradient_checkpointing: bool = False,
) -> list[dict[str, float]]:
    """Train a model on a stream; return the log of all updates, resumed ones included.

    Args:
        model: trained in place, left in evaluation mode.
        stream: `plan.num_items` items.
        objective: what is minimised.
        optimization: optimiser, schedule, batch sizes.
        plan: number of updates.
        learning_rate: peak of the schedule.
        inputs: names of the batches the objective takes.
        options: how batches are scored.
        folder: where the Trainer may write.
        seed: of dropout, if any.
        device: where the model is.
        callbacks: further callbacks; one of them takes the snapshots.
        resume_from: a snapshot to go on from.
        gradient_checkpointing: recompute activations in the backward pass.
    """
    if gradient_checkpointing:
        model.enable_input_require_grads()  # type: ignore[operator]
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.updates,
        per_device_train_batch_size=optimization.micro_batch_size,
        gradient_accumulation_steps=optimization.batch_size // optimization.micro_batch_size,
        learning_rate=learning_rate,
        weight_decay=optimization.weight_decay,
        adam_beta1=optimization.betas[0],
        adam_beta2=optimization.betas[1],
        max_grad_norm=optimization.max_grad_norm,
        lr_scheduler_type={"linear": "linear", "constant": "constant_with_warmup"}[
            optimization.schedule
        ],
        warmup_steps=math.ceil(optimization.warmup_epochs * plan.updates_per_epoch),
        bf16=optimization.autocast == "bfloat16",
        seed=seed,
        use_cpu=device.type == "cpu",
        optim="adamw_torch",
        train_sampling_strategy="sequential",
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = ObjectiveTrainer(
        objective,
        inputs,
        options,
        model=model,
        args=arguments,
        train_dataset=stream,
        data_collator=collate,
        callbacks=callbacks,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    model.eval()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    if history:
        history[-1]["total_flops"] = trainer.state.total_flos
    return history


def _flops_per_token(model: nn.Module) -> int:
    """Return the FLOPs per token of a training step.

    2 per weight forward, 2 backward through activations, and 2 more where the weights are trained;
    embeddings and head are left out. A LoRA backward is not a full backward.
    """
    ends = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}  # type: ignore[operator]
    body = [p for p in model.parameters() if p.ndim > 1 and p not in ends]
    trains_all = all(p.requires_grad for p in body)
    return (6 if trains_all else 4) * sum(p.numel() for p in body)
