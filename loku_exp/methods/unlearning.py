"""One method of unlearning: an adapter with an init, a loss, and a recipe; snapshots and resume.

It takes a target model and records and leaves a language model that can give logits, generate, be
saved and loaded. Everything it writes lies in the run's folder.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from loku_exp.data.batches import Stream
from loku_exp.data.records import Records
from loku_exp.errors import TrainingError
from loku_exp.inits.interface import Factors
from loku_exp.losses.scores import LossTerms
from loku_exp.methods.adapter import (
    Adapter,
    attach,
    load_factors,
    load_trained,
    save_factors,
    target_function,
)
from loku_exp.methods.stop_rule import UntilForgotten
from loku_exp.models import memory
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.distributed import fsdp2
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.settings import Recipe
from loku_exp.training.guards import EveryMatrixLearns
from loku_exp.training.progress import Progress, Told
from loku_exp.training.schedule import Plan
from loku_exp.training.snapshots import Snapshots, name_of, staging_in, step_of
from loku_exp.training.trainer import Objective, fit, read_history

log = logging.getLogger(__name__)
Until = Callable[[int], UntilForgotten]
Initialise = Callable[[], tuple[dict[str, Factors], dict[str, Any]]]


@dataclass(frozen=True)
class Snapshot:
    """A model along the way: after `step` updates, `epoch` passes over the forget set."""

    step: int
    epoch: float
    folder: Path


@dataclass(frozen=True)
class Unlearned:
    """What unlearning hands to the evaluation stage.

    Attributes:
        model: the unlearned model, in memory.
        factors: the initial adapter by layer; empty for full fine-tuning.
        init_report: what the init found, and the share of the adapted weights' norm it took.
        snapshots: in order; the last one is the model.
        history: one entry an update: losses, gradient norm, learning rate.
        plan: updates and epochs; a stop rule may have ended it early.
        stop: what the stop rule reports, if there is one.
    """

    model: nn.Module
    factors: dict[str, Factors]
    init_report: dict[str, Any]
    snapshots: list[Snapshot]
    history: list[dict[str, float]]
    plan: Plan
    stop: dict[str, Any] | None = None

    @property
    def num_trainable(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def unlearn(
    model: PreTrainedModel,
    records: Records,
    loss: Callable[..., LossTerms],
    inputs: tuple[str, ...],
    recipe: Recipe,
    *,
    adapter: Adapter | None,
    initialise: Initialise | None,
    folder: Path,
    seed: int,
    until: Until | None = None,
    sharded: bool = False,
) -> Unlearned:
    """Unlearn the forget records from a model, going on from the newest snapshot in `folder`.

    Args:
        model: the target model; changed in place.
        records: forget and retain.
        loss: of LoKU's comparison or a user's own.
        inputs: what the loss takes, of ``forget`` and ``retain``.
        recipe: optimiser, schedule, batches.
        adapter: its shape, or None to train all weights.
        initialise: makes the initial factors and a report; not called where `folder` has them.
        folder: of the run.
        seed: of data order and retain draw.
        until: makes the stop rule, from the number of updates of an epoch.
        sharded: over the processes (FSDP2); the model is left so, see `gathered`.
    """
    trained: nn.Module = model
    factors: dict[str, Factors] = {}
    report: dict[str, Any] = {}
    if adapter is not None and initialise is not None:
        factors, report = load_factors(initial_file(folder, initialise))
        trained, report["share_of_weight_norm"] = attach(model, factors, adapter)
    plan = plan_of(recipe, len(records.forget))
    stream = _stream(records, inputs, recipe, plan, seed)
    checkpointed = _is_checkpointed(trained, stream, recipe, plan)
    if checkpointed and not sharded:  # FSDP2 brings its own
        trained.enable_input_require_grads()  # type: ignore[operator]
        trained.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    stop = until(plan.updates_per_epoch) if until else None
    snapshots = folder / "snapshots"
    newest = max(snapshots.glob("step-*"), default=None)
    if newest is not None and stop is not None and stop.resume(step_of(newest)):
        load_trained(trained, newest)
        history = read_history(newest)
    else:
        if newest is not None:
            log.info("going on from %s", newest.name)
        steps = plan.snapshot_steps(recipe.snapshot_epochs)
        callbacks: list[TrainerCallback] = [EveryMatrixLearns(), Snapshots(steps, snapshots)]
        callbacks += [*([stop] if stop else []), Progress("unlearning"), Told()]
        objective = Objective(
            loss,
            inputs,
            plain=recipe.head == "plain",
            chunk_rows=recipe.chunk_rows,
            as_target=target_function(trained),
        )
        with staging_in(folder) as staging:
            history = fit(
                trained,
                stream,
                objective,
                recipe,
                plan,
                learning_rate=recipe.learning_rate if adapter else recipe.full_learning_rate,
                folder=staging,
                seed=derive(seed, "dropout") + parallel.rank(),
                callbacks=callbacks,
                resume_from=newest,
                sharding=fsdp2(trained, checkpointed) if sharded else None,
            )
    outcome = stop.report() if stop else None
    return Unlearned(trained, factors, report, _made(snapshots, plan), history, plan, outcome)


def _made(snapshots: Path, plan: Plan) -> list[Snapshot]:
    """Return the snapshots there are, in order."""
    return [
        Snapshot(step, step / plan.updates_per_epoch, snapshots / name_of(step))
        for step in sorted(step_of(place) for place in snapshots.glob("step-*"))
    ]


def gathered(unlearned: Unlearned, model: PreTrainedModel, adapter: Adapter | None) -> Unlearned:
    """Return the same with a whole model, put together from the target and the last snapshot."""
    whole: nn.Module = model
    if adapter is not None:
        whole, _ = attach(model, unlearned.factors, adapter)
    load_trained(whole, unlearned.snapshots[-1].folder)
    return replace(unlearned, model=whole.eval())


def initial_file(folder: Path, initialise: Initialise) -> Path:
    """Return the file of the initial factors, made where it is not there."""
    file = folder / "init.safetensors"
    if not file.is_file():
        save_factors(*initialise(), file)
    return file


def plan_of(recipe: Recipe, num_forget: int) -> Plan:
    """Return the plan of an unlearning.

    Raises:
        TrainingError: it is less than one update, or a micro-batch would have no retain example.
    """
    plan = Plan.of(recipe, num_forget, parallel.size())
    drawn = recipe.retain_batch_size
    if drawn is not None and drawn * plan.micro_batch_size < plan.batch_size:
        raise TrainingError(
            f"training.retain_batch_size={drawn} leaves some of the "
            f"{plan.batch_size // plan.micro_batch_size} micro-batches of an update without a retain "
            "example; raise it, or training.micro_batch_size"
        )
    return plan


def _stream(
    records: Records, inputs: tuple[str, ...], recipe: Recipe, plan: Plan, seed: int
) -> Stream:
    """Return the examples of the whole unlearning, in order; the forget set comes first, for epochs."""
    sets = {name: [record.answer for record in getattr(records, name)] for name in sorted(inputs)}
    per_update = plan.batch_size if recipe.reduction == "update" else None
    return Stream(
        sets,
        plan.num_items,
        derive(seed, "order"),
        items_per_update=per_update,
        drawn_per_update=recipe.retain_batch_size,
        bucket=plan.bucket(recipe),
    )


def _is_checkpointed(model: nn.Module, stream: Stream, recipe: Recipe, plan: Plan) -> bool:
    """Return whether activations are computed twice to save memory; ``auto``: where they would not fit."""
    if recipe.gradient_checkpointing != "auto":
        return recipe.gradient_checkpointing
    device = next(model.parameters()).device
    longest = max(len(row.ids) for rows in stream.sequences.values() for row in rows)
    an_item = sum(max(map(len, items)) for items in stream.order.values())
    texts = plan.micro_batch_size * an_item
    needed = memory.activation_bytes(model, texts, longest)
    if memory.fits(needed, device):
        return False
    log.info(
        "activations of a micro-batch need up to %s, %s are free: gradient checkpointing is on",
        memory.gibibytes(needed),
        memory.gibibytes(memory.free_memory(device)),
    )
    return True
