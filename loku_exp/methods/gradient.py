"""Unlearning by gradient steps: a loss, from an init of an adapter or on all weights, under a recipe.

LoKU is one of these (``loss=ihl init=fila``), and so are its baselines. Everything it writes lies in the
run's folder: the start before the first update (see `starting`), ``snapshots/`` along the way.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from loku_exp.data.batches import Stream
from loku_exp.data.records import Records
from loku_exp.errors import TrainingError, UserError
from loku_exp.evaluation.suite import Stop
from loku_exp.fisher.measure import draw_retain
from loku_exp.losses import dry_run
from loku_exp.methods.adapter import Adapter, attach, load_trained, target_function
from loku_exp.methods.shipping import ship
from loku_exp.methods.starting import INITIAL, Started, ready_to_train
from loku_exp.methods.stop_rule import UntilForgotten
from loku_exp.models import memory
from loku_exp.models.load import store_as
from loku_exp.runtime import distributed
from loku_exp.runtime.cache import digest, file_digest
from loku_exp.runtime.chosen import Chosen
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.settings import Recipe
from loku_exp.subject import Moment, Outcome, Report, Subject
from loku_exp.training.progress import Told, TrainingProgress
from loku_exp.training.schedule import Plan
from loku_exp.training.snapshots import (
    Snapshots,
    name_of,
    newest_whole,
    snapshots_in,
    staging_in,
    step_of,
)
from loku_exp.training.trainer import Objective, fit, read_history
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)


def gradient(
    target: Subject,
    records: Records,
    workspace: Workspace,
    loss: Chosen,
    init: Chosen | None,
    adapter: Adapter | None,
    recipe: Recipe,
    stop: Stop | None,
) -> Outcome:
    """Unlearn the forget records, going on from the newest snapshot in the run's folder.

    Args:
        target: what is unlearned from.
        records: forget and retain.
        workspace: of the run.
        loss: of LoKU's comparison or a user's own; it names what it takes of ``forget`` and ``retain``.
        init: makes the adapter's initial factors; None without an adapter.
        adapter: its shape, or None to train all weights, in fp32: small updates round away in bf16.
        recipe: optimiser, schedule, batches.
        stop: ends the training early, if there is one.
    """
    started = ready_to_train(target, records, workspace, init, adapter)
    plan = plan_of(recipe, len(records.forget))
    stream = _stream(records, loss.inputs, recipe, plan, workspace.seed)
    checkpointed = _is_checkpointed(started.model, stream, recipe, plan)
    history, rule = _trained(started, stream, workspace, loss, recipe, plan, stop, checkpointed)
    snapshots = workspace.folder / "snapshots"
    moments = [
        Moment(
            _subject(target, started, snapshots / name_of(step)),
            step,
            step / plan.updates_per_epoch,
        )
        for step in map(step_of, snapshots_in(snapshots))
    ]
    final = moments[-1]
    report = _report(started, history, rule, loss, init, recipe, plan)
    report.training["gradient_checkpointing"] = checkpointed
    del started.model  # what follows loads what it needs
    ships = partial(ship, final.subject, target, started.factors, adapter, records, workspace)
    return Outcome(final.subject, report, ships, tuple(moments[:-1]), final.step, final.epoch)


def plan_of(recipe: Recipe, num_forget: int) -> Plan:
    """Return the plan of an unlearning.

    Raises:
        TrainingError: it is less than one update, or a micro-batch would have no retain example.
    """
    plan = Plan.of(recipe, num_forget, distributed.size())
    drawn = recipe.retain_batch_size
    if drawn is not None and drawn * plan.micro_batch_size < plan.batch_size:
        raise TrainingError(
            f"training.retain_batch_size={drawn} leaves some of the "
            f"{plan.batch_size // plan.micro_batch_size} micro-batches of an update without a retain "
            "example; raise it, or training.micro_batch_size"
        )
    return plan


def problems(
    records: Records,
    loss: Chosen,
    init: Chosen | None,
    recipe: Recipe,
    vocabulary: int,
    layers: int,
) -> list[str]:
    """Return what would end this method, a line each.

    Args:
        records: of the run.
        loss: tried on two rows.
        init: its ``num_retain``, if it has one, must be there.
        recipe: must make at least one update.
        vocabulary: tokens of the tokenizer.
        layers: of the model.
    """
    found = []
    known = records.batch_names()
    unknown = [name for name in loss.inputs if name not in known]
    if unknown:
        return [
            f"loss={loss.name}: it wants the batch '{unknown[0]}', and this dataset has "
            f"{', '.join(known)}"
        ]
    try:
        plan_of(recipe, len(records.forget))
        num_retain = init.knobs.get("num_retain") if init else None
        if num_retain is not None:
            draw_retain(records.retain, num_retain, seed=0)
    except TrainingError as error:
        found.append(f"training.{str(error).removeprefix('training.')}")
    except UserError as error:
        found.append(str(error))
    texts, _ = records.batches(loss.inputs)
    empty = [name for name, rows in texts.items() if not rows]
    if empty:
        return [
            *found,
            f"loss={loss.name}: it wants the batch '{empty[0]}', and this dataset has 0 such rows; give "
            "it some, or use a loss without that batch",
        ]
    called = partial(loss.resolve(), **loss.knobs)
    return found + dry_run.problems(loss.name, called, texts, vocabulary, layers)


def _trained(
    started: Started,
    stream: Stream,
    workspace: Workspace,
    loss: Chosen,
    recipe: Recipe,
    plan: Plan,
    stop: Stop | None,
    checkpointed: bool,
) -> tuple[list[dict[str, float]], UntilForgotten | None]:
    """Train, or go on; return the log of all updates, and the stop rule with what it found."""
    snapshots = workspace.folder / "snapshots"
    rule = UntilForgotten(stop, plan.updates_per_epoch) if stop else None
    with distributed.first_alone() as first:
        if first:
            newest_whole(snapshots)  # sets aside what is damaged
    newest = newest_whole(snapshots)
    if newest is not None and rule is not None and rule.resume(newest):
        return read_history(newest), rule
    if newest is not None:
        log.info("going on from %s", newest.name)
    model: Any = started.model
    if checkpointed:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    steps = plan.snapshot_steps(recipe.snapshot_epochs)
    callbacks: list[TrainerCallback] = [Snapshots(steps, snapshots)]
    callbacks += [*([rule] if rule else []), TrainingProgress("unlearning"), Told()]
    objective = Objective(
        partial(loss.resolve(), **loss.knobs), loss.inputs, as_target=target_function(model)
    )
    with staging_in(workspace.folder) as staging:
        history = fit(
            model,
            stream,
            objective,
            recipe,
            plan,
            folder=staging,
            seed=derive(workspace.seed, "dropout") + distributed.rank(),
            callbacks=callbacks,
            resume_from=newest,
        )
    return history, rule


def _subject(target: Subject, started: Started, snapshot: Path) -> Subject:
    """Return a snapshot as a subject; each load builds it anew."""
    files = sorted(snapshot.glob("*.safetensors"))
    initial = snapshot.parents[1] / INITIAL
    content = [file_digest(file) for file in [*files, *([initial] if started.adapter else [])]]
    factors, adapter, own_dtype = started.factors, started.adapter, started.dtype

    def load(dtype: str | None = None) -> nn.Module:
        model: Any
        if adapter is None:
            model = target.load(dtype="float32")  # type: ignore[misc]
            load_trained(model, snapshot)
            store_as(model, dtype or own_dtype)  # evaluated as it is shipped
        else:
            model, _ = attach(target.load(dtype=dtype), factors, adapter)  # type: ignore[misc]
            load_trained(model, snapshot)
        return model.eval()

    return Subject(
        name="unlearned",
        weights=target.weights,
        identity=digest([target.identity, content]),
        load=load,
        derived_from=target.name,
        reference=target.reference,
        of_run=True,
        path=str(snapshot),
    )


def _report(
    started: Started,
    history: list[dict[str, float]],
    rule: UntilForgotten | None,
    loss: Chosen,
    init: Chosen | None,
    recipe: Recipe,
    plan: Plan,
) -> Report:
    names = [name for name in history[0] if name.endswith("_loss")]
    names += [name for name in ("grad_norm", "learning_rate") if name in history[0]]
    training: dict[str, Any] = {name: [entry[name] for entry in history] for name in names}
    clipped = [entry["grad_norm"] > recipe.max_grad_norm for entry in history]
    training |= {
        "clipped_share": sum(clipped) / len(clipped),
        "epochs": len(history) / plan.updates_per_epoch,
        "max_epochs": recipe.epochs,
    }
    training |= rule.report() if rule else {}
    drawn = recipe.retain_batch_size or plan.batch_size
    fisher, low_rank = (started.report.get(f"{k}_flops", 0) for k in ("fisher", "low_rank"))
    total = history[-1].get("total_flops", 0)
    return Report(
        training=training,
        init={"name": init.name} | init.knobs | started.report
        if init and started.adapter
        else None,
        protocol={
            "updates": len(history),
            "examples_per_update": [plan.batch_size, drawn if "retain" in loss.inputs else 0],
            "reduction": recipe.reduction,
            "micro_batch_size": recipe.micro_batch_size,
            "bucket": recipe.bucket,
        },
        flops={
            "training": total,
            "fisher": fisher,
            "low_rank": low_rank,
            "total": total + low_rank + fisher,
            # The Fisher is measured once a model, forget set and estimator; ranks and losses share it.
            "total_with_shared_fisher": total + low_rank,
        },
        trainable_parameters=started.trainable,
    )


def _stream(
    records: Records, inputs: tuple[str, ...], recipe: Recipe, plan: Plan, seed: int
) -> Stream:
    """Return the examples of the whole unlearning, in order; the forget set comes first, for epochs."""
    sets, paired = records.batches(inputs)
    per_update = plan.batch_size if recipe.reduction == "update" else None
    return Stream(
        sets,
        plan.num_items,
        derive(seed, "order"),
        items_per_update=per_update,
        drawn_per_update=recipe.retain_batch_size,
        bucket=plan.bucket(recipe),
        paired=paired,
    )


def _is_checkpointed(model: nn.Module, stream: Stream, recipe: Recipe, plan: Plan) -> bool:
    """Return whether activations are computed twice to save memory; ``auto``: where they would not fit."""
    if recipe.gradient_checkpointing != "auto":
        return recipe.gradient_checkpointing
    device = next(model.parameters()).device
    longest = max(len(row.ids) for rows in stream.sequences.values() for row in rows)
    an_item = sum(max(map(len, items)) for items in stream.order.values())
    needed = memory.activation_bytes(model, plan.micro_batch_size * an_item, longest)
    if memory.fits(needed, device):
        return False
    log.info(
        "activations of a micro-batch need up to %s, %s are free: gradient checkpointing is on",
        memory.gibibytes(needed),
        memory.gibibytes(memory.free_memory(device)),
    )
    return True
