"""The one call through which every reported number comes: `lm_eval.simple_evaluate`."""

import hashlib
import json
import logging
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from lm_eval import simple_evaluate
from lm_eval.api.group import Group
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from loku_exp.errors import ConfigError, nearest
from loku_exp.evaluation.suite import Evaluation

log = logging.getLogger(__name__)
Unavailable = (OSError, ValueError, RuntimeError)
"""What `datasets` raises where data cannot be had."""


def standard_tasks(names: list[str], include_path: str | None) -> list[Any]:
    """Build lm-eval tasks by name, so that one that cannot be had fails before training.

    Args:
        names: of lm-eval's own tasks and groups, or of those in `include_path`.
        include_path: a folder of task yaml files.

    Raises:
        ConfigError: a name is unknown, or a task or its data cannot be loaded.
    """
    if not names:
        return []
    folder = str(Path(include_path).expanduser()) if include_path else None
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"evaluation.include_path={include_path}: no such folder")
    manager = _tasks_in(folder)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(
            [
                f"evaluation.tasks: lm-eval has no task '{name}'{nearest(name, manager.all_tasks)}"
                for name in unknown
            ]
        )
    return [task for name in dict.fromkeys(names) for task in _standard(name, manager)]


def _standard(name: str, manager: TaskManager) -> list[Any]:
    """Return the group or task of a name, the tasks of a tag; what is in a group is not beside it.

    Raises:
        ConfigError: it cannot be loaded.
    """
    try:
        loaded = manager.load([name])
    except Exception as error:  # a task's yaml names code, which fails in its own way
        said, way_out = next(iter(str(error).splitlines()), ""), "mend the yaml, or its code"
        if isinstance(error, Unavailable):
            way_out = (
                "without a hub, write a yaml that includes the task and reads local files, and give "
                "its folder: evaluation.include_path=DIR"
            )
        elif isinstance(error, ImportError):
            way_out = "install what its code needs"
        raise ConfigError(
            f"evaluation.tasks: '{name}' cannot be loaded ({type(error).__name__}: {said}); "
            f"{way_out}"
        ) from error
    groups = loaded["groups"].values()
    within = {inner.name for group in groups for inner in group.get_all_groups()}
    within |= {task.task_name for group in groups for task in group.get_all_tasks()}
    both = loaded["groups"] | loaded["tasks"]
    return [task for own, task in both.items() if own not in within]


@cache
def _tasks_in(folder: str | None) -> TaskManager:
    """Return lm-eval's index of tasks; it reads 14,000 files, for seconds."""
    return TaskManager(include_path=folder)


def evaluate(lm: LM, tasks: list[Any], limit: dict[str, int] | None = None) -> Evaluation:
    """Evaluate a model on tasks; all random states are as before.

    A metric that is no finite number, as the perplexity of a destroyed model, is absent, and said to be.

    Args:
        lm: usually an `loku_exp.evaluation.lm.unlearn_lm.UnlearnLM`.
        tasks: task and group objects.
        limit: first documents to take, by task; absent tasks are taken whole.
    """
    by_itself = patch.dict(os.environ, {"LOCAL_RANK": "0"})  # lm-eval gives others no results
    with by_itself, _undisturbed(), _quiet_harness(), _overflowing(tasks):
        results = simple_evaluate(
            lm,
            tasks=tasks,
            task_manager=TaskManager(include_defaults=False),
            samples={name: list(range(count)) for name, count in (limit or {}).items()} or None,
            bootstrap_iters=0,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
            log_samples=True,
        )
    metrics, counts = {}, {}
    for name, values in results["results"].items():
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            if not filtered or not isinstance(value, Real) or metric.endswith("_stderr"):
                continue
            if metric == "n":
                counts[name] = int(float(value))
            else:
                whole = metric == name or metric.startswith(f"{name}_")  # of a group
                label = metric if whole else f"{name}_{metric}"
                label = label if filtered == "none" else f"{label}_{filtered}"
                if math.isfinite(value):
                    metrics[label] = float(value)
                else:
                    log.warning("%s is %s, no finite number; it is left out", label, value)
    examples = [
        {"set": name, **row}
        for name, samples in results["samples"].items()
        for row in map(_row, samples)
        if row
    ]
    return Evaluation(metrics, counts, examples)


def _row(sample: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a document: what a task of ours says, or the numbers of a standard one."""
    if "n" in sample:
        return dict(sample["n"])
    if sample["filter"] != "none":
        return {}
    values = {name: sample[name] for name in sample["metrics"]}
    numbers = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, Real) and math.isfinite(value)
    }
    return {"row": sample["doc_id"], **numbers} if numbers else {}


def limits(tasks: Sequence[Any], limit: int | None) -> dict[str, int]:
    """Return how many documents of each standard task to take."""
    if limit is None:
        return {}
    leaves = [leaf for task in tasks for leaf in _leaves(task)]
    return {leaf.task_name: min(limit, len(leaf.eval_docs)) for leaf in leaves}


def names_of(tasks: Sequence[Any]) -> set[str]:
    """Return the names of tasks, and of those in groups."""
    return {leaf.task_name for task in tasks for leaf in _leaves(task)}


def shared_names(tasks: Sequence[Any]) -> list[str]:
    """Return which names several tasks or groups have: lm-eval asks one of them, or ends.

    Args:
        tasks: everything that is asked together.
    """
    groups = [group for group in tasks if isinstance(group, Group)]
    groups += [inner for group in groups for inner in group.get_all_groups()]
    names = [group.name for group in groups]
    names += [leaf.task_name for task in tasks for leaf in _leaves(task)]
    return sorted(name for name, count in Counter(names).items() if count > 1)


def documents_digest(tasks: Sequence[Any]) -> str:
    """Return the identity of what tasks ask: their names and documents."""
    leaves = [leaf for task in tasks for leaf in _leaves(task)]
    rows = ([leaf.task_name, document] for leaf in leaves for document in leaf.eval_docs)
    text = hashlib.sha256()
    for row in rows:
        text.update(json.dumps(row, sort_keys=True, default=str).encode())
    return text.hexdigest()[:16]


def _leaves(task: Any) -> list[Any]:
    return task.get_all_tasks() if isinstance(task, Group) else [task]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore the global random states afterwards."""
    python, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


@contextmanager
def _overflowing(tasks: Sequence[Any]) -> Iterator[None]:
    """Have aggregations that overflow return infinity."""

    def safe(aggregation: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        def aggregated(items: list[Any]) -> Any:
            try:
                return aggregation(items)
            except OverflowError:
                return math.inf

        return aggregated

    with ExitStack() as stack:
        for leaf in (leaf for task in tasks for leaf in _leaves(task)):
            own = leaf.aggregation

            def aggregation(own: Any = own) -> dict[str, Any]:
                return {name: safe(function) for name, function in own().items()}

            stack.enter_context(patch.object(leaf, "aggregation", aggregation))
        yield


@contextmanager
def _quiet_harness() -> Iterator[None]:
    """Leave out lm-eval's report of environment and commit (ours is in the record) and its bars."""
    with (
        patch("lm_eval.evaluator.get_git_commit_hash", return_value=None),
        patch("torch.utils.collect_env.get_pretty_env_info", return_value=""),
        patch("lm_eval.api.task.tqdm", side_effect=lambda documents, **_: documents),
    ):
        yield
