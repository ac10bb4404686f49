"""General ability: nine multiple-choice and cloze tasks, and four dialogue tasks, for one model."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from loku_exp.errors import ConfigError, UserError
from loku_exp.evaluation.ability.dialogue import DIALOGUES, dialogue_group, dialogue_task
from loku_exp.evaluation.ability.harness_tasks import (
    STOCK_FILES,
    Unavailable,
    reason,
    stock_manager,
    stock_task,
)
from loku_exp.evaluation.ability.local import foundry_tasks, text_tasks
from loku_exp.evaluation.ability.predecessor import PREDECESSOR_TASKS, predecessor_task
from loku_exp.evaluation.tasks import Mean


@dataclass(frozen=True)
class Ability:
    """The tasks that can be run.

    Attributes:
        tasks: groups of tasks, for `loku_exp.evaluation.harness.evaluate`.
        missing: by task, why it is absent (only with ``skip_missing``).
    """

    tasks: list[Any]
    missing: dict[str, str]


def ability(
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    variant: Literal["harness", "predecessor"],
    data_dir: str | None,
    texts_dir: str | None,
    skip_missing: bool,
) -> Ability:
    """Build the tasks, so that those whose data cannot be had fail before training.

    Metrics: ``<task>_acc`` of each task; ``reasoning`` (or ``reasoning_predecessor``), the mean over
    the nine, only where all nine are there; ``reasoning_local``, the mean over the own-named tasks
    that are there (variant ``harness``); ``<task>_f1``, ``<task>_loss``; ``dialogue``, the mean of
    the four F1, only where all four are there.

    Args:
        tokenizer: the model's.
        max_length: the model's context, in tokens.
        variant: ``harness`` for lm-eval's tasks under its names, and beside them own-named tasks on
            local files of other kinds (`loku_exp.evaluation.ability.local`); ``predecessor`` for the
            scoring of Jang et al.
        data_dir: folder of local data: ``<task>.jsonl`` (.json, .csv, .parquet) with the hub's
            columns stands in for the hub; .jsonl in llm-foundry's schema gives ``<file>_local``.
        texts_dir: folder of the predecessor's validation_data: lambada.csv, pubmed_qa.csv and the
            four dialogue files.
        skip_missing: leave out tasks whose data cannot be had, instead of failing.

    Raises:
        ConfigError: data cannot be had (one error for all tasks), or a folder does not exist.
        DataError: a local file is malformed.
    """
    data, texts = _folder("data_dir", data_dir), _folder("texts_dir", texts_dir)
    missing: dict[str, str] = {}
    tasks: list[Any] = []
    if variant == "harness":
        manager = stock_manager()
        builders: dict[str, Callable[[], Any]] = {
            name: partial(stock_task, name, data, manager) for name in STOCK_FILES
        }
        group = "reasoning"
    else:
        builders = {
            name: partial(predecessor_task, name, tokenizer, max_length, data, texts)
            for name in PREDECESSOR_TASKS
        }
        group = "reasoning_predecessor"
    nine = _built(builders, missing, data)
    if nine:
        tasks.append(Mean(group, nine, "acc", builders))
    if variant == "harness":
        local = (foundry_tasks(data) if data else []) + (text_tasks(texts) if texts else [])
        if local:
            names = [task.task_name for task in local]
            tasks.append(Mean("reasoning_local", local, "acc", names))
    dialogues = _built(
        {name: partial(dialogue_task, name, texts, tokenizer, max_length) for name in DIALOGUES},
        missing,
        data,
    )
    if dialogues:
        tasks.append(dialogue_group(dialogues))
    if missing and not skip_missing:
        raise ConfigError(
            [f"evaluation: '{name}' is missing: {why}" for name, why in missing.items()]
            + [
                "evaluation: give local files, evaluation.data_dir=DIR with <task>.jsonl in the hub's "
                "schema and evaluation.texts_dir=DIR with the predecessor's texts, "
                "or leave them out, evaluation.skip_missing=true"
            ]
        )
    return Ability(tasks, missing)


def _built(
    builders: dict[str, Callable[[], Any]], missing: dict[str, str], data: Path | None
) -> list[Any]:
    """Return what could be built; note in `missing` why the rest could not."""
    tasks = []
    for name, build in builders.items():
        try:
            tasks.append(build())
        except UserError:
            raise
        except Unavailable as error:
            missing[name] = reason(name, error, data)
    return tasks


def _folder(name: str, path: str | None) -> Path | None:
    if path is None:
        return None
    folder = Path(os.path.expanduser(path))
    if not os.path.isdir(folder):
        raise ConfigError(f"evaluation.{name}={path}: no such folder")
    return folder
