"""The tasks of the bench's suites under names of lm-eval: what ``class`` of a task yaml is.

A task is the very object that a run of the bench evaluates with, made by the same configuration, so its
numbers are the same.
"""

from functools import cache
from typing import Any

from lm_eval.api.group import Group

from loku_exp import __version__
from loku_exp.config.compose import compose_config
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, nearest
from loku_exp.lm_eval.model import teach
from loku_exp.lm_eval.words import in_lm_evals_words, task_overrides
from loku_exp.runtime.cache import Cache
from loku_exp.stages.inputs import Inputs, load_inputs

HINT = (
    "keys of this bench are given by --metadata here, e.g. --metadata dataset.path=DIR; for the tasks of "
    "one dataset alone: tofu.dataset.path=DIR tdec.dataset.path=DIR"
)


class EvaluationSet:
    """One set of a suite, or the group over several; making one gives lm-eval's task or group.

    Args:
        config: of the yaml. ``dataset_name`` is one of ``conf/dataset``, ``test_split`` a set of its suite,
            ``dataset_kwargs`` are the dataset's knobs; ``metadata`` holds the words of the command line.

    Raises:
        UserError: as the bench's own command line has it.
    """

    def __new__(cls, config: dict[str, Any]) -> Any:  # noqa: D102 - see the class
        teach()
        return task_of(config)

    def __init__(self, config: dict[str, Any]):  # lm-eval looks whether it takes one
        raise AssertionError("never called: __new__ returns something else")


def task_of(config: dict[str, Any]) -> Any:
    """Return the task or group that a task yaml describes; see `EvaluationSet`."""
    name, words = config["task"], config.get("metadata") or {}
    if not words.get("pretrained") and not words.get("tokenizer"):
        raise ConfigError(
            f"--tasks {name}: its texts are encoded by the model's tokenizer, and neither --model_args "
            "pretrained=DIR nor --metadata tokenizer=DIR says which"
        )
    dataset, wanted = config["dataset_name"], config["test_split"]
    overrides = task_overrides(
        dataset, {"pretrained": words.get("tokenizer")} | words, config.get("dataset_kwargs") or {}
    )
    tasks = _by_name(_suite_tasks(overrides))
    if wanted not in tasks:
        raise ConfigError(
            f"test_split={wanted} of {name}: the suite of dataset {dataset} has {', '.join(tasks)}"
            f"{nearest(wanted, tasks)}"
        )
    return _named(tasks[wanted], name, dataset, overrides)


def _suite_tasks(overrides: tuple[str, ...]) -> list[Any]:
    with in_lm_evals_words(HINT):
        config, inputs = _loaded(overrides)
        reference, read = None, inputs.suite.read_log
        if config.reference.source == "log":
            log = str(config.reference.path)
            if read is None:
                raise ConfigError(f"reference.path={log}: this suite knows no published logs")
            reference = read(log)
    return [*inputs.suite.tasks(reference, "full"), *inputs.suite.abilities]


@cache
def _loaded(overrides: tuple[str, ...]) -> tuple[Config, Inputs]:
    """Return configuration and texts; several sets of a dataset share them."""
    config = compose_config(list(overrides))
    return config, load_inputs(config, Cache(config.cache_dir))


def _by_name(tasks: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for task in tasks:
        if isinstance(task, Group):
            found |= {task.name: task} | {leaf.task_name: leaf for leaf in task.get_all_tasks()}
        else:
            found[task.task_name] = task
    return found


def _named(task: Any, name: str, dataset: str, overrides: tuple[str, ...]) -> Any:
    """Give a task, or a group and its tasks, the names that lm-eval knows them by."""
    if isinstance(task, Group):
        for leaf in task.get_all_tasks():
            task.pop(leaf.task_name)
            task.add(_named(leaf, f"{dataset}_{leaf.task_name}", dataset, overrides))
        task.name = name
    else:
        task.set_config("task", name)
        task.set_config("metadata", {"loku_exp": __version__, "overrides": list(overrides)})
    return task
