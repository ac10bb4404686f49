"""Fine-tune a target or a reference here, and what its weights depend on."""

from pathlib import Path
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.data.batches import Stream
from loku_exp.data.corpus import Role
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.losses.terms import cross_entropy
from loku_exp.models import identity
from loku_exp.models import load as models
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.settings import ModelSettings, Optimization
from loku_exp.stages.inputs import Materials
from loku_exp.training.progress import Progress
from loku_exp.training.schedule import Plan
from loku_exp.training.trainer import Objective, fit

BASE_FORMAT = 3  # raise by hand whenever an unchanged recipe gives other weights or answers


def finetune(role: Role, config: Config, materials: Materials, folder: Path, position: int) -> None:
    """Fine-tune on the role's training rows in fp32; save model and tokenizer in the model's dtype."""
    device = models.resolve_device(config.device)
    seed = seed_of(role, config)
    if config.model.weights == "scratch":
        start = derive(seed, role, "weights")
        model = models.build_model(
            config.model, materials.tokenizer, start, device, dtype="float32"
        )
    else:
        model = models.load_model(config.model, str(config.model.path), device, dtype="float32")
    recipe = resolved_finetuning(config)
    records = materials.records
    rows = records.target_training if role == "target" else records.reference_training
    plan = Plan.of(recipe, len(rows))
    fit(
        model,
        Stream(
            {"rows": [row.answer for row in rows]},
            plan.num_items,
            derive(seed, role, "order"),
            bucket=plan.bucket(recipe),
        ),
        Objective(_language_modelling, inputs=("rows",)),
        recipe,
        plan,
        learning_rate=recipe.learning_rate,
        folder=folder / ".staging",
        seed=derive(seed, role, "dropout"),
        callbacks=[Progress(f"training the {role}", position)],
    )
    models.store_as(model, config.model.dtype)
    model.save_pretrained(folder)
    materials.tokenizer.save_pretrained(folder)


def resolved_finetuning(config: Config) -> Optimization:
    """Return the fine-tuning recipe with the precision this machine trains in."""
    recipe = config.model.finetuning
    device = models.resolve_device(config.device)
    return recipe.model_copy(update={"autocast": models.resolve_autocast(recipe.autocast, device)})


def _language_modelling(rows: Scores) -> LossTerms:
    return LossTerms(rows.mean(cross_entropy))


def training_recipe(role: Role, config: Config, materials: Materials) -> dict[str, Any]:
    """Return everything the weights of a base fine-tuned here depend on."""
    model, corpus = config.model, materials.corpus
    scratch = model.weights == "scratch"
    return {
        "format": BASE_FORMAT,
        "start": model.architecture if scratch else _start_digest(model),
        "tokenizer": materials.tokenizer_digest,
        "template": model.template.model_dump(),
        "dtype": model.dtype,
        "finetuning": resolved_finetuning(config).model_dump(mode="json", exclude_none=True),
        "rows": corpus.training_digest(role),
        "seed": seed_of(role, config),
    }


def _start_digest(model: ModelSettings) -> str:
    return identity.weights_digest(str(model.path), "model.path", model)


def seed_of(role: Role, config: Config) -> int:
    """Return the seed a base is trained with."""
    return config.target.seed if role == "target" else config.reference.seed
