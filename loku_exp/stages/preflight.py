"""What can be wrong with a run beyond its configuration, found before its folder is made."""

from loku_exp.config.rules import TARGET_IS_BASE
from loku_exp.config.schema import Config
from loku_exp.data.corpus import Role
from loku_exp.errors import ConfigError, TrainingError
from loku_exp.evaluation.harness import Evaluation
from loku_exp.methods import gradient as method
from loku_exp.methods.adapter import Adapter
from loku_exp.models import identity
from loku_exp.models import load as models
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.hub import is_local
from loku_exp.runtime.settings import Optimization
from loku_exp.stages import evaluate as assessment
from loku_exp.stages.inputs import Materials
from loku_exp.training.schedule import Plan


def prepare(config: Config, materials: Materials) -> tuple[Adapter | None, Evaluation | None]:
    """Check everything, and return what that reads: the adapter's shape, a published reference.

    Raises:
        UserError: something does not fit.
    """
    check(config, materials)
    adapter = method.plan_adapter(config, materials)
    return adapter, assessment.read_published(config, materials)


def check(config: Config, materials: Materials) -> None:
    """Check device, lengths of training, lengths of texts, and what lies in the folders named.

    Raises:
        UserError: with everything found, where it can be found at once.
    """
    models.resolve_device(config.device)
    of_suite = getattr(materials.suite, "problems", None)
    problems = of_suite(materials.max_length) if of_suite else []
    problems += _training_problems(config, materials)
    problems += _weights_problems(config)
    if problems:
        raise ConfigError(problems)


def trained_here(config: Config) -> list[Role]:
    """Return which of target and reference are fine-tuned here."""
    if config.model.weights == "random":
        return []
    roles: list[Role] = [] if config.target.path else ["target"]
    return [*roles, "reference"] if config.reference.source == "train" else roles


def _training_problems(config: Config, materials: Materials) -> list[str]:
    """Return which trainings would end before their first update."""
    records = materials.records
    rows = {"target": records.target_training, "reference": records.reference_training}
    trainings: list[tuple[str, Optimization, int, int]] = [
        ("model.finetuning", config.model.finetuning, len(rows[role]), 1)
        for role in trained_here(config)
    ]
    if config.unlearn:
        trainings.append(("training", config.training, len(records.forget), parallel.size()))
    problems = []
    for name, optimization, num_rows, processes in trainings:
        try:
            Plan.of(optimization, num_rows, processes)
        except TrainingError as error:
            problems.append(f"{name}.{error}")
    return problems


def _weights_problems(config: Config) -> list[str]:
    """Return whether weights are missing, or a reference would be trained from the target."""
    base, target = str(config.model.path), config.target.path
    roles = trained_here(config)
    if config.model.weights == "random":
        return []
    if roles and config.model.weights == "pretrained":
        identity.check_weights(base, "model.path")
    if target is not None:
        identity.check_weights(target, "target.path")
    if config.reference.source == "path":
        identity.check_weights(str(config.reference.path), "reference.path")
    if target is None or "reference" not in roles or not (is_local(base) and is_local(target)):
        return []
    same = identity.weight_files(base) == identity.weight_files(target)
    return [TARGET_IS_BASE.format(path=target)] if same else []
