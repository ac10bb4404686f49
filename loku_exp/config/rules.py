"""The one place where a configuration is judged.

Hydra composes plain yaml; `parse` turns the result into a frozen `Config` or raises one
`ConfigError` that lists everything wrong with it. Nothing heavy is imported here.
"""

import importlib.util
from typing import Any

from pydantic import ValidationError

from loku_exp.config import components
from loku_exp.config.adapter_rules import adapter_problems
from loku_exp.config.places import place_problems
from loku_exp.config.schema import Component, Config, DatasetConfig, EvaluationConfig
from loku_exp.config.schema_problems import schema_problems
from loku_exp.errors import ConfigError
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.settings import Optimization

PROGRAM = ("records", "workspace")
GIVEN = {  # what the program hands over
    "loss": ("forget", "retain"),
    "regulariser": ("factors", "moments"),
    "init": ("layers", "fisher", "moments", "variance"),
    "method": ("target", *PROGRAM, "loss", "init", "adapter", "recipe", "stop"),
    "attacks": ("subject", *PROGRAM),
    "dataset": (),
    "evaluation": ("records", "tokenizer", "max_length"),
}
TARGET_IS_BASE = (
    "target.path={path} is also the base in model.path, so reference.source=train would make the reference "
    "from a model that knows the forget set. Give the model before it was fine-tuned in model.path, or a "
    "reference: reference.source=path reference.path=DIR (weights that never saw the forget set), "
    "reference.source=log (a published log), or reference.source=none"
)


def parse(container: dict[str, Any]) -> Config:
    """Turn a composed, resolved configuration into a `Config`.

    Args:
        container: plain dictionaries, as from ``OmegaConf.to_container(cfg, resolve=True)``.

    Raises:
        ConfigError: with every problem found, each naming key, value and rule.
    """
    problems = component_problems(container)
    try:
        config = Config.model_validate(container)
    except ValidationError as error:
        problems = schema_problems(error) + problems
    else:
        method_is_known = not any(text.startswith("method._target_") for text in problems)
        problems += cross_field_problems(config) if method_is_known else []
    problems += place_problems(container)
    if not any(text.startswith("dataset") for text in problems):
        problems += dataset_problems(container.get("dataset"))
    if problems:
        raise ConfigError(problems)
    return config


def component_problems(container: dict[str, Any]) -> list[str]:
    """Return what is wrong with the knobs of losses, inits, datasets and suites."""
    problems = []
    sections: dict[str, type[Component]] = {
        "method": Component,
        "loss": Component,
        "regulariser": Component,
        "init": Component,
        "dataset": DatasetConfig,
        "evaluation": EvaluationConfig,
    }
    nodes = [(name, name, container.get(name)) for name in sections]
    attacks = container.get("attacks")
    if isinstance(attacks, dict):
        nodes += [("attacks", f"attacks.{name}", node) for name, node in attacks.items()]
    for kind, name, node in nodes:
        if isinstance(node, dict) and isinstance(node.get("_target_"), str):
            section = sections.get(kind, Component)
            own = {field.alias or key for key, field in section.model_fields.items()}
            knobs = {key: value for key, value in node.items() if key not in own}
            problems += components.signature_problems(
                name, node["_target_"], knobs, GIVEN[kind], named=kind == "loss"
            )
    return problems


def dataset_problems(node: Any) -> list[str]:
    """Return what the dataset's own module finds wrong, if it offers ``problems(**knobs)``."""
    try:
        dataset = DatasetConfig.model_validate(node)
    except ValidationError:  # the schema says it
        return []
    check = dataset.chosen().beside("problems")
    return list(check(**dataset.knobs) or []) if check else []


def cross_field_problems(config: Config) -> list[str]:
    """Return violated rules that concern more than one key."""
    problems = _recipe_problems(config) + adapter_problems(config)
    problems += _target_problems(config) + _precision_problems(config)
    problems += _reference_problems(config)
    problems += _subset_problems(config)
    problems += _device_problems(config) + _package_problems(config)
    if config.model.weights == "pretrained" and not config.model.path:
        problems.append("model.path is not set; give a hub id or a folder: model.path=...")
    if config.model.weights == "random" and not config.model.architecture:
        problems.append(
            f"model.weights=random needs model.architecture; {config.model.name} has none"
        )
    if config.model.tokenizer is None and config.model.vocabulary is None:
        problems.append(
            "model.tokenizer is not set; give a folder, or train one: model.vocabulary=4096"
        )
    return problems


def _recipe_problems(config: Config) -> list[str]:
    problems = []
    optimisations: dict[str, Optimization] = {
        "training": config.training,
        "model.finetuning": config.model.finetuning,
    }
    for name, node in optimisations.items():
        if node.batch_size != "all" and node.batch_size % node.micro_batch_size:
            problems.append(
                f"{name}.micro_batch_size={node.micro_batch_size} must divide "
                f"{name}.batch_size={node.batch_size}"
            )
    if config.training.batch_size == "all" and config.training.reduction == "micro_batch":
        problems.append(
            "training.batch_size=all needs training.reduction=update: the split into micro-batches would "
            "change numbers otherwise"
        )
    if config.training.retain_batch_size and config.training.reduction == "micro_batch":
        problems.append("training.retain_batch_size needs training.reduction=update")
    epochs = config.training.epochs
    if config.uses("stop") and config.training.stop is not None and epochs != int(epochs):
        problems.append(
            f"training.epochs={epochs}: training.stop is asked at the end of each epoch, and there is none "
            "at this end; take a whole number, or set training.stop=null"
        )
    return problems


def _device_problems(config: Config) -> list[str]:
    problems = []
    if parallel.size() > 1 and ":" in config.device:
        problems.append(
            f"device={config.device}: under torchrun each process takes the GPU of its number; leave "
            "device out, or set device=cpu"
        )
    if config.launcher.kind == "gpus" and config.device not in ("auto", "cuda", "cuda:0"):
        problems.append(
            f"device={config.device}: launcher=gpus gives each run a GPU, the only one it sees; leave "
            "device out, or use launcher=processes"
        )
    return problems


def _package_problems(config: Config) -> list[str]:
    """Return what is asked for and comes with an extra that is not installed."""
    problems = []
    tracker = config.tracking.name
    if tracker in ("trackio", "tensorboard") and importlib.util.find_spec(tracker) is None:
        problems.append(
            f"tracking={tracker} needs the package {tracker}: pip install 'loku_exp[{tracker}]'"
        )
    if config.launcher.kind == "slurm" and importlib.util.find_spec("submitit") is None:
        problems.append(
            "launcher=slurm needs the package submitit: pip install 'loku_exp[slurm]'; without a "
            "cluster use launcher=processes or launcher=gpus"
        )
    return problems


def _precision_problems(config: Config) -> list[str]:
    if config.model.dtype != "float16" or not config.uses("loss"):
        return []
    return [
        "model.dtype=float16: small gradients, and IHL's get small, are 0 in it without loss scaling, "
        "which is not done here; use bfloat16 or float32 (unlearn=false may stay with it)"
    ]


def _target_problems(config: Config) -> list[str]:
    run, path = config.target.run, config.target.path
    if run is not None and path is not None:
        return [
            f"target.run={run}: there is target.path={path} too, and a run has one target; write "
            "target=run beside it, and no target.path"
        ]
    if run is not None and config.model.weights == "random":
        return [f"target.run={run}: model.weights=random has no use for it; remove one of the two"]
    return []


def _reference_problems(config: Config) -> list[str]:
    problems = []
    needs_path = config.reference.source in ("path", "log")
    if needs_path and not config.reference.path:
        problems.append(
            f"reference.source={config.reference.source} needs reference.path=..., or use "
            "reference.source=train to make the reference here, reference.source=none for none"
        )
    if not needs_path and config.reference.path:
        problems.append(
            f"reference.path={config.reference.path} is not used with reference.source="
            f"{config.reference.source}; set reference.source=path (weights) or log (published log)"
        )
    trained = config.reference.source == "train" and config.model.weights == "pretrained"
    if trained and config.target.path is not None and config.target.path == config.model.path:
        problems.append(TARGET_IS_BASE.format(path=config.target.path))
    truth_ratio = config.evaluation.knobs.get("truth_ratio", "geometric")
    if config.reference.source == "log" and truth_ratio != "geometric":
        problems.append(
            f"evaluation.truth_ratio={truth_ratio}: a published log (reference.source=log) is scored with "
            "the geometric one, and the two would not compare; set evaluation.truth_ratio=geometric"
        )
    return problems


def _subset_problems(config: Config) -> list[str]:
    """Return what of a public model or log does not fit a part of a dataset; it is of the whole."""
    authors = config.dataset.knobs.get("authors")
    if authors is None or config.model.weights == "random":
        return []
    problems = []
    pair = config.pairing.get(config.dataset.label, {}).get(config.model.name, {})
    if config.target.path is not None and config.target.path == pair.get("target"):
        problems.append(
            f"target.path={config.target.path} knows all of the dataset, and dataset.authors={authors} is "
            "a part of it; have a target fine-tuned here: target.path=null"
        )
    if config.reference.source == "log":
        problems.append(
            f"reference.source=log: published logs are of all authors, and dataset.authors={authors} is a "
            "part; use reference.source=train, or dataset.authors=null"
        )
    return problems
