"""The training loop: transformers' Trainer with an objective over named batches.

Used twice: to fine-tune targets and references, and to unlearn. Only `compute_loss` is replaced;
batching lives in the stream, snapshots and checks in callbacks.
"""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from loku_exp.data.batches import Batch, Stream, collate
from loku_exp.losses.scores import Context, LossTerms, Scores
from loku_exp.models.flops import StepFlops
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.settings import Optimization
from loku_exp.runtime.whole_files import writing
from loku_exp.training.guards import (
    EveryMatrixLearns,
    FiniteUpdates,
    WeightsMove,
    on_device_of_model,
    own_forward,
)
from loku_exp.training.saved_state import SavesWithoutPickle
from loku_exp.training.schedule import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Attributes:
        loss: takes one `Scores` per name in `inputs`.
        inputs: names of the batches it wants.
        plain: compute all logits and select, instead of chunking the head.
        chunk_rows: labelled rows per chunk of the head.
        as_target: a context in which the model computes the target's function.
    """

    loss: Callable[..., LossTerms]
    inputs: tuple[str, ...]
    plain: bool = False
    chunk_rows: int | None = None
    as_target: Context | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> LossTerms:
        """Return the loss on a micro-batch."""
        options = {k: getattr(self, k) for k in ("plain", "chunk_rows", "as_target")}
        scores = {name: Scores(model, batch[name], **options) for name in self.inputs}
        return self.loss(**scores)


class ObjectiveTrainer(SavesWithoutPickle):
    """A Trainer whose loss is an objective over named batches.

    Args:
        objective: what is minimised.
        trainer: arguments of `transformers.Trainer`.
    """

    # compute_loss returns a micro-batch mean; the Trainer divides by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(self, objective: Objective, **trainer: Any):
        super().__init__(**trainer)
        self._objective = objective
        self._parts: dict[str, list[Tensor]] = defaultdict(list)
        self._losses: list[Tensor] = []
        self._reaches_all = True
        self.add_callback(FiniteUpdates(self._losses, unlearns="forget" in objective.inputs))
        self.add_callback(EveryMatrixLearns(lambda: self._reaches_all))
        self.add_callback(WeightsMove())
        self._step_flops = StepFlops.of(trainer["model"])
        # an adapter makes its input fp32, which autocast makes bf16 again; dropout between needs the fp32
        self._casts_twice = self.args.bf16 and not _drops(trainer["model"])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Return the objective on a micro-batch, without waiting for the device; `inputs` is a `Batch`."""
        own: Any = self.model  # `model` may be a wrapper around it, for several processes
        with disable_input_dtype_casting(own, active=self._casts_twice):
            terms = parallel.through(model, own, lambda: self._objective(own, inputs))
        total = terms.total
        self._losses.append(total.detach())
        self._reaches_all &= terms.reaches_all
        for name, value in terms.by_name().items():
            self._parts[f"{name}_loss"].append(value.detach())
        return total

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the schedule; a constant one warms up from its first update on, which is not lost.

        A warm-up of transformers begins at 0. That is the official recipe where the schedule is linear,
        but where an epoch is one update it would make the first of few epochs do nothing.
        """
        if self.args.lr_scheduler_type != "constant":
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = int(self.args.warmup_steps)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer,  # type: ignore[arg-type]
            lambda step: min(1.0, (step + 1) / (warmup + 1)),
        )
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the objective, averaged over the micro-batches of an update."""
        if "loss" in logs:
            for name, values in self._parts.items():
                logs[name] = self.accelerator.gather(torch.stack(values)).mean().item()
            self._parts.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return the FLOPs of a micro-batch, forward and backward; see `loku_exp.models.flops`."""
        plain, chunk_rows = self._objective.plain, self._objective.chunk_rows
        return sum(
            self._step_flops.flops(inputs[name], plain=plain, chunk_rows=chunk_rows)
            for name in self._objective.inputs
        )


def _drops(model: nn.Module) -> bool:
    """Return whether a model has dropout that does something."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())


def fit(
    model: nn.Module,
    stream: Stream,
    objective: Objective,
    optimization: Optimization,
    plan: Plan,
    *,
    folder: Path,
    seed: int,
    callbacks: list[TrainerCallback],
    resume_from: Path | None = None,
) -> list[dict[str, float]]:
    """Train a model on a stream; return the log of all updates, resumed ones included.

    Args:
        model: trained in place where it is, left in evaluation mode.
        stream: `plan.num_items` items.
        objective: what is minimised.
        optimization: optimiser, schedule, batch sizes.
        plan: number of updates.
        folder: where the Trainer may write.
        seed: of dropout, if any.
        callbacks: a progress bar, snapshots, checks.
        resume_from: a snapshot to go on from.
    """
    device = next(model.parameters()).device
    if plan.highest_rate(optimization) < 1:
        log.warning(
            "warmup_epochs=%g takes all %d updates: the rate comes to %.0f %% of learning_rate at most",
            optimization.warmup_epochs, plan.updates, 100 * plan.highest_rate(optimization),
        )  # fmt: skip
    arguments = _arguments(optimization, plan, folder, seed, device)
    trainer = ObjectiveTrainer(
        objective,
        model=model,
        args=on_device_of_model(arguments, device),
        train_dataset=stream,
        data_collator=collate,
        callbacks=callbacks,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    with own_forward(model), writing(folder):
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    model.eval()
    return _updates(trainer.state.log_history, trainer.state.total_flos)


def read_history(snapshot: Path) -> list[dict[str, float]]:
    """Return the log of all updates up to a snapshot, as `fit` does."""
    state = json.loads((snapshot / "trainer_state.json").read_text(encoding="utf-8"))
    return _updates(state["log_history"], state["total_flos"])


def _updates(log_history: list[dict[str, float]], flops: float) -> list[dict[str, float]]:
    history = [entry for entry in log_history if "loss" in entry]
    history[-1]["total_flops"] = flops
    return history


def _arguments(
    optimization: Optimization,
    plan: Plan,
    folder: Path,
    seed: int,
    device: torch.device,
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.updates,
        per_device_train_batch_size=plan.micro_batch_size,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=optimization.learning_rate,
        weight_decay=optimization.weight_decay,
        adam_beta1=optimization.betas[0],
        adam_beta2=optimization.betas[1],
        max_grad_norm=optimization.max_grad_norm
        or math.inf,  # inf scales by 1, and the norm is logged
        lr_scheduler_type=optimization.schedule,
        warmup_steps=plan.warmup(optimization.warmup_epochs),
        bf16=optimization.autocast == "bfloat16",
        seed=seed,
        use_cpu=device.type == "cpu",
        optim="adamw_torch",
        train_sampling_strategy="sequential",
        dataloader_pin_memory=device.type == "cuda",
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        remove_unused_columns=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
