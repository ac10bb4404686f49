"""General ability: multiple-choice, cloze and dialogue tasks, whatever the dataset is."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from loku_exp.errors import ConfigError, DataError, UserError, nearest
from loku_exp.evaluation.ability.dialogue import DIALOGUES, dialogue_group, dialogue_task
from loku_exp.evaluation.ability.harness_tasks import (
    STOCK_FILES,
    reason,
    stock_manager,
    stock_task,
)
from loku_exp.evaluation.ability.local import foundry_tasks, text_tasks
from loku_exp.evaluation.ability.predecessor import PREDECESSOR_TASKS, predecessor_task
from loku_exp.evaluation.harness import Unavailable
from loku_exp.evaluation.tasks import Mean

log = logging.getLogger(__name__)

LOCAL = "local"
SETS: dict[str, tuple[str, ...]] = {
    "harness": tuple(STOCK_FILES),
    "predecessor": PREDECESSOR_TASKS,
    "dialogue": DIALOGUES,
}
"""By name of a set: its tasks. `LOCAL` is one more, of whatever local files there are."""
WAYS_OUT = (
    "evaluation: give local files, evaluation.data_dir=DIR with <task>.jsonl in the hub's schema and "
    "evaluation.texts_dir=DIR with the predecessor's texts, name the abilities you have data for, "
    "evaluation.abilities=[...], or leave out those without, evaluation.skip_missing=true"
)


@dataclass(frozen=True)
class Ability:
    """The tasks that can be run.

    Attributes:
        tasks: groups of tasks, for `loku_exp.evaluation.harness.evaluate`.
        missing: by task, why it is absent (only with ``skip_missing``).
    """

    tasks: list[Any] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def ability(
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    data_dir: str | None,
    texts_dir: str | None,
    skip_missing: bool,
) -> Ability:
    """Build the tasks, so that those whose data cannot be had fail before training.

    Metrics: ``<task>_acc`` of each task; ``reasoning`` (or ``reasoning_predecessor``), the mean over
    the nine, only where all nine are there; ``reasoning_local``, the mean over the local tasks that are
    there; ``<task>_f1``, ``<task>_loss``; ``dialogue``, the mean of the four F1, only where all four
    are there.

    Args:
        names: sets or single tasks: ``harness`` (nine tasks as lm-eval scores them, under its names),
            ``predecessor`` (the same as Jang et al. score them), ``dialogue`` (their four dialogue
            tasks), ``local`` (own-named tasks on local files of other kinds,
            `loku_exp.evaluation.ability.local`), or any task of these.
        tokenizer: the model's.
        max_length: the model's context, in tokens.
        data_dir: folder of local data: ``<task>.jsonl`` (.json, .csv, .parquet) with the hub's
            columns stands in for the hub; .jsonl in llm-foundry's schema gives ``<file>_local``.
        texts_dir: folder of the predecessor's validation_data: lambada.csv, pubmed_qa.csv and the
            four dialogue files.
        skip_missing: leave out tasks whose data cannot be had, instead of failing; each is said.

    Raises:
        ConfigError: data cannot be had (one error for all tasks), ``data_dir`` is given and no task is
            left, a name is unknown, or a folder does not exist.
        DataError: a local file is malformed.
    """
    if not names:
        return Ability()
    data, texts = _folder("data_dir", data_dir), _folder("texts_dir", texts_dir)
    shop = _Shop(tokenizer, max_length, data, texts)
    wanted = list(dict.fromkeys(task for name in names for task in SETS.get(name, (name,))))
    _check_names(wanted, shop)
    built = Ability()
    built.tasks.extend(_groups(wanted, shop, built.missing))
    _check_missing(built, data_dir, skip_missing)
    return built


def _check_missing(built: Ability, data_dir: str | None, skip_missing: bool) -> None:
    """Say what is missing.

    Raises:
        ConfigError: nothing may be, or all of it is though ``data_dir`` is given.
    """
    absent = [f"evaluation: '{name}' is missing: {why}" for name, why in built.missing.items()]
    if absent and not skip_missing:
        raise ConfigError([*absent, WAYS_OUT])
    if absent and data_dir and not built.tasks:
        nothing = (
            f"evaluation.data_dir={data_dir}: no ability has data there; name its folder, or none"
        )
        raise ConfigError([*absent, nothing])
    for line in absent:
        log.warning("%s", line)


class _Shop:
    """What makes single tasks."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        data: Path | None,
        texts: Path | None,
    ):
        self.model = (tokenizer, max_length)
        self.data, self.texts = data, texts

    @cached_property
    def local(self) -> dict[str, Any]:
        """The own-named tasks of local files, by name."""
        found: dict[str, Any] = {}
        tasks = foundry_tasks(self.data) if self.data else []
        for task in [*tasks, *(text_tasks(self.texts) if self.texts else [])]:
            if task.task_name in found:
                raise DataError(
                    f"evaluation.data_dir={self.data} and evaluation.texts_dir={self.texts} both have a "
                    f"file for '{task.task_name}'; rename one of them"
                )
            found[task.task_name] = task
        return found

    @cached_property
    def manager(self) -> Any:
        """lm-eval's, of the nine tasks."""
        return stock_manager()

    def make(self, wanted: Sequence[str], one_set: str, missing: dict[str, str]) -> list[Any]:
        """Return what could be built of a set; note in `missing` why the rest could not."""
        tasks = []
        for name in (name for name in wanted if name in SETS[one_set]):
            try:
                tasks.append(self._maker(name)())
            except UserError:
                raise
            except Unavailable as error:
                missing[name] = reason(name, error, self.data)
        return tasks

    def _maker(self, name: str) -> Callable[[], Any]:
        if name in STOCK_FILES:
            return partial(stock_task, name, self.data, self.manager)
        if name in DIALOGUES:
            return partial(dialogue_task, name, self.texts, *self.model)
        return partial(predecessor_task, name, *self.model, self.data, self.texts)


def _check_names(wanted: Sequence[str], shop: _Shop) -> None:
    """Check that every name is that of a task.

    Raises:
        ConfigError: one is not.
    """
    known = [LOCAL, *(task for tasks in SETS.values() for task in tasks)]
    unknown = [name for name in wanted if name not in known and name not in shop.local]
    if unknown:
        every = [*SETS, *known, *shop.local]
        raise ConfigError(
            [
                f"evaluation.abilities: there is none named '{name}'{nearest(name, every)}; the sets are "
                f"{', '.join([*SETS, LOCAL])}; any task of theirs can be named alone, and any other of "
                "lm-eval in evaluation.tasks"
                for name in unknown
            ]
        )


def _groups(wanted: Sequence[str], shop: _Shop, missing: dict[str, str]) -> Iterator[Any]:
    """Make groups of the wanted tasks that can be had, each with a mean of its own."""
    local = [task for name, task in shop.local.items() if LOCAL in wanted or name in wanted]
    for name, tasks, of_all in (
        ("reasoning", shop.make(wanted, "harness", missing), SETS["harness"]),
        ("reasoning_predecessor", shop.make(wanted, "predecessor", missing), SETS["predecessor"]),
        ("reasoning_local", local, [task.task_name for task in local]),
    ):
        if tasks:
            yield Mean(name, tasks, "acc", of_all)
    if list(wanted) == [LOCAL] and not local:
        missing[LOCAL] = f"no file of its kinds in data_dir={shop.data} or texts_dir={shop.texts}"
    dialogues = shop.make(wanted, "dialogue", missing)
    if dialogues:
        yield dialogue_group(dialogues)


def _folder(name: str, path: str | None) -> Path | None:
    if path is None:
        return None
    folder = Path(os.path.expanduser(path))
    if not os.path.isdir(folder):
        raise ConfigError(f"evaluation.{name}={path}: no such folder")
    return folder
