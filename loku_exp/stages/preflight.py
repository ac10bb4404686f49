"""What can be wrong with a run beyond its configuration, found before its folder is made."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from loku_exp.config.rules import TARGET_IS_BASE
from loku_exp.config.schema import Component, Config
from loku_exp.errors import ConfigError, DataError, TrainingError, UserError
from loku_exp.evaluation.catalogue import by_name
from loku_exp.evaluation.harness import shared_names
from loku_exp.methods.adapter import Adapter
from loku_exp.models import identity
from loku_exp.models.load import architecture, from_architecture
from loku_exp.models.tokenizer import beyond
from loku_exp.runtime import distributed
from loku_exp.runtime.chosen import check_returned
from loku_exp.runtime.hub import is_local
from loku_exp.runtime.settings import MeetReference
from loku_exp.stages.inputs import Inputs
from loku_exp.stages.space import check_space, space_needs
from loku_exp.stages.unlearn import plan_adapter
from loku_exp.stages.weights import trained_here, weights_problems
from loku_exp.training.schedule import Plan


def prepare(config: Config, inputs: Inputs) -> Adapter | None:
    """Check everything, room on the disk too, and return the adapter's shape, where there is one.

    Raises:
        UserError: with everything found, where it can be found at once.
    """
    adapter = check(config, inputs)
    check_space(space_needs(config, inputs, adapter))
    return adapter


def check(config: Config, inputs: Inputs) -> Adapter | None:
    """Check everything but the disk, and return the adapter's shape, where there is one.

    Raises:
        UserError: with everything found, where it can be found at once.
    """
    problems = inputs.suite.problems(inputs.max_length)
    problems += _finetuning_problems(config, inputs) + _torchrun_problems(config)
    problems += weights_problems(config, (inputs.tokenizer, inputs.tokenizer_digest))
    problems += _reference_problems(config, inputs)
    problems += _said(lambda: _embedding_problems(config, inputs))
    problems += _said(lambda: _log_problems(config, inputs))
    problems += _said(lambda: _name_problems(config, inputs))
    problems += _stop_problems(config, inputs) + _knowing_problems(config, inputs)
    adapters: list[Adapter | None] = []
    problems += _said(lambda: adapters.append(plan_adapter(config, inputs)))
    adapter = adapters[0] if adapters else None
    problems += _said(lambda: _method_problems(config, inputs, adapter))
    problems += _said(lambda: _loss_problems(config, inputs))
    problems += _said(lambda: _init_problems(config, inputs, adapter))
    problems += _said(lambda: _regulariser_problems(config, inputs, adapter))
    problems += _said(lambda: _attack_problems(config, inputs))
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return adapter


def _said(check: Callable[[], list[str] | None]) -> list[str]:
    """Return what a check finds, or what it raises for a user, a line each."""
    try:
        return check() or []
    except UserError as error:
        return str(error).splitlines()


def _stop_problems(config: Config, inputs: Inputs) -> list[str]:
    """Return why the recipe's stop rule could not be made."""
    rule = config.training.stop
    if rule is None or not config.uses("stop"):
        return []
    of = f"the suite of dataset {config.dataset.label}"
    if isinstance(rule, MeetReference):
        if inputs.suite.meet is None:
            return [
                f"training.stop.meets={rule.meets}: {of} has no such rule, TOFU's has; set "
                "training.stop=null, or thresholds: training.stop={n: 10, el: null, ma: null}"
            ]
        if config.reference.source == "none" or config.model.weights == "random":
            return [
                f"training.stop.meets={rule.meets}: there is no reference to meet; give one "
                "(reference.source=train, path or log), or set training.stop=null"
            ]
    elif inputs.suite.stop is None:
        return [
            f"training.stop: {of} has no stop rule by extraction; set training.stop=null, or where there "
            "is a reference training.stop={meets: forget_prob}"
        ]
    return inputs.suite.stop_problems(rule)


def _name_problems(config: Config, inputs: Inputs) -> list[str]:
    """Return which tasks have a name in common, so that not all of them could be asked."""
    tasks = inputs.suite.tasks(None, "full")
    check_returned(f"tasks of {config.evaluation.target}", tasks, Sequence)
    return [
        f"evaluation: two tasks or groups are named '{name}', and their results could not be told apart; "
        "leave one out of evaluation.tasks or evaluation.abilities, or rename your own"
        for name in shared_names([*tasks, *inputs.abilities])
    ]


def _knowing_problems(config: Config, inputs: Inputs) -> list[str]:
    """Return whether the suite lacks the metric that shows whether a target knows the forget set."""
    metric, known = config.dataset.known_by, by_name(inputs.suite.catalogue)
    if not config.unlearn or config.model.weights == "random" or metric in known:
        return []
    return [
        f"dataset.known_by={metric}: the suite has no such metric; it has {', '.join(known)}; name one "
        f"of them, or leave the suite to dataset={config.dataset.label} (no evaluation=...)"
    ]


def _own_problems(component: Component, **available: Any) -> list[str]:
    """Return what the module of a component finds wrong, if it offers ``problems(...)``."""
    check = component.chosen().beside("problems")
    if check is None:
        return []
    takes = inspect.signature(check).parameters
    given = {name: value for name, value in available.items() if name in takes}
    knobs = {name: value for name, value in component.knobs.items() if name in takes}
    return list(check(**given, **knobs) or [])


def _method_problems(config: Config, inputs: Inputs, adapter: Adapter | None) -> list[str]:
    if not config.unlearn:
        return []
    whole = architecture(config.model, inputs.tokenizer)
    text = whole.get_text_config()
    return _own_problems(
        config.method,
        records=inputs.records,
        loss=config.loss.chosen(),
        init=config.init.chosen() if config.init else None,
        adapter=adapter,
        recipe=config.training,
        architecture=whole,
        vocabulary=len(inputs.tokenizer),
        layers=getattr(text, "num_hidden_layers", 2),
    )


def _loss_problems(config: Config, inputs: Inputs) -> list[str]:
    if not config.uses("loss"):
        return []
    given = {"records": inputs.records, "recipe": config.training, "name": config.loss.name}
    return _own_problems(config.loss, **given)


def _init_problems(config: Config, inputs: Inputs, adapter: Adapter | None) -> list[str]:
    if config.init is None or adapter is None:
        return []
    given = {"records": inputs.records, "rank": adapter.rank, "name": config.init.name}
    return _own_problems(config.init, **given)


def _regulariser_problems(config: Config, inputs: Inputs, adapter: Adapter | None) -> list[str]:
    if config.regulariser is None or adapter is None:
        return []
    layers = adapter.layers(_skeleton(config, inputs), seed=0)
    widths = {layer.name: len(layer.weight) for layer in layers}
    return _own_problems(config.regulariser, records=inputs.records, widths=widths)


def _attack_problems(config: Config, inputs: Inputs) -> list[str]:
    given: dict[str, Any] = {"records": inputs.records, "max_length": inputs.max_length}
    given |= {"skeleton": _skeleton(config, inputs)} if config.attacks else {}
    ask = partial(_own_problems, **given)
    each = config.attacks.items()
    return [line for name, one in each for line in _said(partial(ask, one, name=name))]


def _skeleton(config: Config, inputs: Inputs) -> nn.Module:
    """Return the model without memory."""
    with torch.device("meta"):
        return from_architecture(config.model, inputs.tokenizer)


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
    return problems


def _torchrun_problems(config: Config) -> list[str]:
    """Return what several processes cannot share: all but the training of an unlearning."""
    if distributed.size() == 1:
        return []
    problems = []
    if not config.uses("recipe"):
        what = f"method={config.method.name}" if config.unlearn else "unlearn=false"
        problems.append(f"{what} trains nothing; start it without torchrun")
    if config.attacks:
        names = " ".join(config.attacks)
        problems.append(
            f"attacks=[{','.join(config.attacks)}]: one process makes them; leave them out under torchrun, "
            f"and add them to the finished run without it: python -m loku_exp.attack RUN {names}"
        )
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
    try:
        inputs.suite.read_log(str(config.reference.path))
    except DataError as error:
        raise DataError(f"reference.path={config.reference.path}: {error}") from error
    return None


def _reference_problems(config: Config, inputs: Inputs) -> list[str]:
    """Return whether a reference would be trained from the target."""
    base = str(config.model.path)
    target = inputs.earlier.base if inputs.earlier else config.target.path
    wanted = "reference" in trained_here(config)
    if target is None or not wanted or not (is_local(base) and is_local(target)):
        return []
    same = identity.weight_files(base) == identity.weight_files(target)
    return [TARGET_IS_BASE.format(path=target)] if same else []


def _embedding_problems(config: Config, inputs: Inputs) -> list[str]:
    """Return which texts have ids that the model's embedding has no row for."""
    text = architecture(config.model, inputs.tokenizer).get_text_config()
    rows = getattr(text, "vocab_size", None)
    return beyond(inputs.records, rows) if rows else []
