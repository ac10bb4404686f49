"""Fine-tune a target or a reference here, and what its weights depend on."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from loku_exp.config.schema import Config
from loku_exp.data.batches import Stream
from loku_exp.data.corpus import Role
from loku_exp.losses.builtin import language_modelling
from loku_exp.models import identity
from loku_exp.models import load as models
from loku_exp.models.origin import SMALL, hand_on_origin, write_origin
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.settings import ModelSettings
from loku_exp.runtime.whole_files import write_text
from loku_exp.stages.inputs import Inputs
from loku_exp.training.progress import TrainingProgress
from loku_exp.training.schedule import Plan
from loku_exp.training.snapshots import Snapshots, newest_whole
from loku_exp.training.trainer import Objective, fit

log = logging.getLogger(__name__)
COST_FILE = "cost.json"
SHARE_OF_SNAPSHOTS = 0.05  # of the time: each is all weights and two moments of each
BASE_FORMAT = 3  # raise by hand whenever an unchanged recipe gives other weights or answers


def finetune(
    role: Role, config: Config, inputs: Inputs, folder: Path, unfinished: Path, position: int
) -> None:
    """Fine-tune on the role's training rows in fp32; save model and tokenizer in the model's dtype.

    Args:
        role: which rows.
        config: of the run.
        inputs: of the run.
        folder: for model and tokenizer.
        unfinished: for what a killed training goes on from.
        position: line of its progress bar.
    """
    seed, model = seed_of(role, config), _start(role, config, inputs)
    recipe, records = config.model.finetuning, inputs.records
    rows = records.target_training if role == "target" else records.reference_training
    plan = Plan.of(recipe, len(rows))
    newest = newest_whole(unfinished)
    if newest is not None:
        log.info("training the %s goes on from %s", role, newest.name)
    epochs = plan.snapshot_steps(1)[:-1]
    history = fit(
        model,
        Stream(
            {"rows": [row.answer for row in rows]},
            plan.num_items,
            derive(seed, role, "order"),
            bucket=plan.bucket(recipe),
        ),
        Objective(language_modelling, inputs=("rows",)),
        recipe,
        plan,
        folder=unfinished / ".staging",
        seed=derive(seed, role, "dropout"),
        callbacks=[
            Snapshots(epochs, unfinished, share=SHARE_OF_SNAPSHOTS, only_newest=True),
            TrainingProgress(f"training the {role}", position),
        ],
        resume_from=newest,
    )
    models.store_as(model, config.model.dtype)
    model.save_pretrained(folder)
    _note_cost(folder, history[-1]["total_flops"])
    inputs.tokenizer.save_pretrained(folder)
    if config.model.weights == "pretrained":
        hand_on_origin(str(config.model.path), folder)
    elif config.model.kind in SMALL:
        write_origin(config.model.kind, folder)


def _start(role: Role, config: Config, inputs: Inputs) -> PreTrainedModel:
    """Return what the fine-tuning starts from, in fp32."""
    device = torch.device(config.device)
    if config.model.weights == "scratch":
        seed = derive(seed_of(role, config), role, "weights")
        return models.build_model(config.model, inputs.tokenizer, seed, device, dtype="float32")
    return models.load_model(config.model, str(config.model.path), device, dtype="float32")


def _note_cost(folder: Path, flops: float) -> None:
    write_text(folder / COST_FILE, json.dumps({"flops": flops}) + "\n")


def flops_of(folder: str | None) -> int | None:
    """Return the FLOPs of a base's fine-tuning; None where it was not done here."""
    file = Path(folder or "") / COST_FILE
    return int(json.loads(file.read_text(encoding="utf-8"))["flops"]) if file.is_file() else None


def training_recipe(role: Role, config: Config, inputs: Inputs) -> dict[str, Any]:
    """Return everything the weights of a base fine-tuned here depend on."""
    model, corpus = config.model, inputs.corpus
    scratch = model.weights == "scratch"
    usual = models.attention_of(model.model_copy(update={"attention": "auto"}), inputs.tokenizer)
    other = {} if model.attention in ("auto", usual) else {"attention": model.attention}
    return other | {
        "format": BASE_FORMAT,
        "start": model.architecture if scratch else _start_digest(model),
        "tokenizer": inputs.tokenizer_digest,
        "template": inputs.template.model_dump(),
        "dtype": model.dtype,
        "finetuning": model.finetuning.model_dump(mode="json", exclude_none=True),
        "rows": corpus.training_digest(role),
        "seed": seed_of(role, config),
    }


def _start_digest(model: ModelSettings) -> str:
    return identity.weights_digest(str(model.path), "model.path", model)


def seed_of(role: Role, config: Config) -> int:
    """Return the seed a base is trained with."""
    return config.target.seed if role == "target" else config.reference.seed
