"""What can be wrong with a run beyond its configuration, found before its folder is made."""

import inspect
from collections.abc import Callable
from typing import Any

from loku_exp.config.rules import TARGET_IS_BASE
from loku_exp.config.schema import Component, Config
from loku_exp.data.corpus import Role
from loku_exp.errors import ConfigError, TrainingError, UserError
from loku_exp.methods.adapter import Adapter
from loku_exp.models import identity
from loku_exp.runtime import distributed
from loku_exp.runtime.hub import is_local
from loku_exp.stages.inputs import Inputs
from loku_exp.stages.unlearn import plan_adapter
from loku_exp.training.schedule import Plan


def prepare(config: Config, inputs: Inputs) -> Adapter | None:
    """Check everything, and return the adapter's shape, where there is one.

    Raises:
        UserError: with everything found, where it can be found at once.
    """
    problems = inputs.suite.problems(inputs.max_length)
    problems += _finetuning_problems(config, inputs)
    problems += _said(lambda: _weights_problems(config))
    problems += _said(lambda: _log_problems(config, inputs))
    adapters: list[Adapter | None] = []
    problems += _said(lambda: adapters.append(plan_adapter(config, inputs)))
    adapter = adapters[0] if adapters else None
    problems += _method_problems(config, inputs, adapter) if config.unlearn else []
    for component in config.attacks.values():
        problems += _own_problems(component, records=inputs.records)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return adapter


def trained_here(config: Config) -> list[Role]:
    """Return which of target and reference are fine-tuned here."""
    if config.model.weights == "random":
        return []
    roles: list[Role] = [] if config.target.path else ["target"]
    return [*roles, "reference"] if config.reference.source == "train" else roles


def _said(check: Callable[[], list[str] | None]) -> list[str]:
    """Return what a check finds, or what it raises for a user, a line each."""
    try:
        return check() or []
    except UserError as error:
        return str(error).splitlines()


def _own_problems(component: Component, **available: Any) -> list[str]:
    """Return what the module of a component finds wrong, if it offers ``problems(...)``."""
    check = component.chosen().beside("problems")
    if check is None:
        return []
    takes = inspect.signature(check).parameters
    given = {name: value for name, value in available.items() if name in takes}
    knobs = {name: value for name, value in component.knobs.items() if name in takes}
    return list(check(**given, **knobs))


def _method_problems(config: Config, inputs: Inputs, adapter: Adapter | None) -> list[str]:
    return _own_problems(
        config.method,
        records=inputs.records,
        loss=config.loss.chosen(),
        init=config.init.chosen() if config.init else None,
        adapter=adapter,
        recipe=config.training,
        vocabulary=len(inputs.tokenizer),
    )


def _finetuning_problems(config: Config, inputs: Inputs) -> list[str]:
    """Return which fine-tunings would end before their first update."""
    records = inputs.records
    rows = {"target": records.target_training, "reference": records.reference_training}
    problems = []
    for role in trained_here(config):
        try:
            Plan.of(config.model.finetuning, len(rows[role]))
        except TrainingError as error:
            problems.append(f"model.finetuning.{error}")
    if config.unlearn and distributed.size() > 1 and not config.uses("recipe"):
        problems.append(f"method={config.method.name} trains nothing; start it without torchrun")
    return problems


def _log_problems(config: Config, inputs: Inputs) -> list[str] | None:
    """Read a published log, which raises what is wrong with it."""
    if config.reference.source != "log":
        return None
    if inputs.suite.read_log is None:
        return [
            f"reference.source=log: the suite of dataset {config.dataset.label} knows no published "
            "logs (TOFU's does); use reference.source=train, path or none"
        ]
    inputs.suite.read_log(str(config.reference.path))
    return None


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
