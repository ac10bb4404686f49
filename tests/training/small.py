"""A training of a few updates on random texts."""

from pathlib import Path

import torch
from torch import nn

from loku_exp.config.compose import compose_config
from loku_exp.data.batches import Stream
from loku_exp.losses.builtin import ihl
from loku_exp.training.schedule import Plan
from loku_exp.training.trainer import Objective, fit
from tests.helpers import random_sequence, tiny_model

LOSS = ("forget", "retain")
OFFICIAL = compose_config(["model=phi"]).training
SETS = {
    "forget": [random_sequence(6 + i, 2, 61, i) for i in range(8)],
    "retain": [random_sequence(5 + i, 2, 61, 50 + i) for i in range(9)],
}


def trained(
    tmp_path: Path,
    plain: bool = False,
    gradient_checkpointing: bool = False,
    loss=ihl,
    model: nn.Module | None = None,
    callbacks: tuple = (),
    resume_from: Path | None = None,
    **changes,
):
    """Six updates of four texts by the official recipe, with changes; returns its log and the model."""
    recipe = OFFICIAL.model_copy(
        update={"batch_size": 4, "micro_batch_size": 2, "epochs": 3, "learning_rate": 1e-3}
        | changes
    )
    plan = Plan.of(recipe, 8)
    per_update = recipe.batch_size if recipe.reduction == "update" else None
    model = model or tiny_model()
    if gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    history = fit(
        model,
        Stream(SETS, plan.num_items, 0, per_update, bucket=plan.bucket(recipe)),
        Objective(loss, LOSS, plain=plain),
        recipe,
        plan,
        folder=tmp_path,
        seed=0,
        callbacks=list(callbacks),
        resume_from=resume_from,
    )
    return history, model


def weights(model: nn.Module) -> torch.Tensor:
    """All weights in one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])
