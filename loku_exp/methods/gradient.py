"""Unlearning by gradient steps: a loss, from an init of an adapter or on all weights, under a recipe.

LoKU is one of these (``loss=ihl init=fila``), and so are its baselines. Everything it writes lies in the
run's folder: the start before the first update (see `starting`), ``snapshots/`` along the way.
"""

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from loku_exp.data.batches import Stream
from loku_exp.data.records import Records
from loku_exp.evaluation.suite import Stop
from loku_exp.methods.adapter import Adapter, attach, target_function
from loku_exp.methods.planning import is_checkpointed, plan_of, problems, stream_of
from loku_exp.methods.shipping import ship
from loku_exp.methods.starting import INITIAL, Started, ready_to_train
from loku_exp.methods.stop_rule import UntilForgotten
from loku_exp.models.load import store_as
from loku_exp.models.trained import load_trained
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

__all__ = ["gradient", "problems"]  # the second is found beside the first

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
    stream = stream_of(records, loss.inputs, recipe, plan, workspace.seed)
    checkpointed = is_checkpointed(started.model, stream, recipe, plan)
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
        """Return the target with what was trained."""
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
    limit = recipe.max_grad_norm or math.inf
    clipped = [entry["grad_norm"] > limit for entry in history]
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
            "micro_batch_size": plan.micro_batch_size,
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
