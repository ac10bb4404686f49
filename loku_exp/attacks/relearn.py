"""Relearning: fine-tune a subject on a few forget rows, and see how much of the forget set comes back.

A low-rank adapter is trained on k forget rows for n updates, on top of the subject. Those rows are asked
too, among all others. A model that never knew the forget set learns something by that as well, so the
reference is attacked alike, and what counts is how much more the unlearned model gains. Sources: Lynch
et al. 2024 (arXiv 2402.16835), Hu et al. 2024 (arXiv 2406.13356), OPTML-Group/Unlearn-Smooth, which train
all weights; an adapter is ours, so that the attacked model can be kept.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from loku_exp.attacks.weights import attackable, put_back
from loku_exp.data.batches import Stream
from loku_exp.data.records import Example, Records
from loku_exp.errors import ModelError
from loku_exp.inits.vanilla import vanilla
from loku_exp.losses.builtin import language_modelling
from loku_exp.methods.adapter import Adapter, adapted_layers, attach, merged
from loku_exp.methods.targets import target_layers
from loku_exp.models.load import linear_layers, weight_matrix
from loku_exp.models.trained import load_trained
from loku_exp.runtime.cache import digest
from loku_exp.runtime.knobs import Count, Positive
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.settings import Optimization
from loku_exp.subject import Subject
from loku_exp.training.progress import TrainingProgress
from loku_exp.training.schedule import Plan
from loku_exp.training.trainer import Objective, fit
from loku_exp.workspace import Workspace

RELEARN_FORMAT = 1  # raise by hand whenever an unchanged attack gives other weights
WEIGHTS = "adapter_model.safetensors"


def relearn(
    subject: Subject,
    records: Records,
    workspace: Workspace,
    *,
    rows: Count,
    steps: Count,
    learning_rate: Positive,
    batch_size: Count,
    rank: Count,
    choose: Literal["spread", "first"],
) -> Subject:
    """Return a subject after fine-tuning on some forget rows.

    Args:
        subject: any with weights; a wrapper around a model is kept, and what it wraps is trained.
        records: whose forget set is learned from.
        workspace: of the run.
        rows: how many forget rows.
        steps: updates.
        learning_rate: constant.
        batch_size: rows an update; at most `rows`.
        rank: of the adapter on all linear layers but the head.
        choose: ``spread`` evenly over the forget set, or the ``first`` ones.
    """
    chosen = chosen_rows(records.forget, rows, choose)
    recipe = {
        "format": RELEARN_FORMAT,
        "subject": subject.identity,
        "rows": digest([row.answer.ids for row in chosen]),
        "settings": [steps, learning_rate, batch_size, rank, workspace.seed],
        "device": workspace.machine.device.partition(":")[0],
        "computed": [workspace.machine.precision["model"], workspace.machine.attention],
    }
    optimization = Optimization(
        epochs=steps * batch_size / len(chosen), batch_size=batch_size, micro_batch_size=batch_size,
        learning_rate=learning_rate, weight_decay=0.0, betas=(0.9, 0.999), warmup_epochs=0.0,
        schedule="constant", max_grad_norm=1.0, bucket=None, autocast="none",
    )  # fmt: skip
    store = workspace.store(subject.of_run)
    train = partial(_train, subject, chosen, optimization, steps, rank, workspace.seed)
    folder = store.entry("relearn", recipe, train)
    return replace(subject, identity=digest(recipe), load=partial(_load, subject, rank, folder))


def problems(records: Records, skeleton: Any, rows: int, batch_size: int, rank: int) -> list[str]:
    """Return what does not fit: so many forget rows, a batch of them, and layers of such a rank.

    Args:
        records: of the run.
        skeleton: the model without memory.
        rows: see `relearn`.
        batch_size: likewise.
        rank: likewise.
    """
    found = []
    linear = linear_layers(skeleton)
    try:
        names = target_layers(skeleton, adapted_layers(skeleton))
    except ModelError:  # it speaks of lora=none, which is no way out here
        kind = type(skeleton).__name__
        return [f"attacks=[relearn]: no adapter can go on this {kind}; leave it out"]
    least = min(min(weight_matrix(linear[name]).shape) for name in names)
    if rank > least:
        found.append(
            f"attacks.relearn.rank={rank}: the smallest layer that it adapts has {least} rows "
            "or columns; set it to at most that"
        )
    if rows > len(records.forget):
        found.append(
            f"attacks.relearn.rows={rows}: the forget set has {len(records.forget)} rows; set it to at "
            "most that"
        )
    if batch_size > rows:
        found.append(
            f"attacks.relearn.batch_size={batch_size} is more than attacks.relearn.rows={rows}; set it to "
            "at most that"
        )
    return found


def chosen_rows(forget: list[Example], count: int, choose: str) -> list[Example]:
    """Return `count` different forget rows."""
    if choose == "first":
        return forget[:count]
    return [forget[k * len(forget) // count] for k in range(count)]


def _train(
    subject: Subject,
    rows: list[Example],
    optimization: Optimization,
    steps: int,
    rank: int,
    seed: int,
    folder: Path,
) -> None:
    """Train a new adapter on a subject and write it."""
    whole = subject.load()  # type: ignore[misc]  # a log is not attacked
    model = _with_adapter(attackable(whole), rank, seed)
    size = optimization.micro_batch_size
    plan = Plan(steps, max(1, len(rows) // size), batch_size=size, micro_batch_size=size)
    stream = Stream(
        {"rows": [row.answer for row in rows]}, plan.num_items, derive(seed, "relearn", "order")
    )
    fit(
        model,
        stream,
        Objective(language_modelling, inputs=("rows",)),
        optimization,
        plan,
        folder=folder / ".staging",
        seed=derive(seed, "relearn", "dropout"),
        callbacks=[TrainingProgress(f"relearning on the {subject.name}")],
    )
    model.save_pretrained(str(folder))


def _load(subject: Subject, rank: int, folder: Path, dtype: str | None = None) -> nn.Module:
    whole = subject.load(dtype=dtype)  # type: ignore[misc]
    model = _with_adapter(attackable(whole), rank, seed=0)
    load_trained(model, folder)
    module: nn.Module = put_back(whole, merged(model))
    return module


def _with_adapter(model: Any, rank: int, seed: int) -> Any:
    adapter = Adapter(rank, 2 * rank, 0.0, adapted_layers(model))
    layers = adapter.layers(model, derive(seed, "relearn", "init"))
    adapted, _ = attach(model, {factors.name: factors for factors in vanilla(layers)}, adapter)
    return adapted
