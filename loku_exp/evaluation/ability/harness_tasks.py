"""lm-eval's nine tasks of general ability under their own names, on the hub's data or a local copy.

A local copy is a file ``<task>.jsonl`` (or .json, .csv, .parquet) whose rows have the hub's columns.
"""

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import datasets
import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml  # private: test_ability_stock.py guards it
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from loku_exp.data.json_values import shortened
from loku_exp.data.text_files import SUFFIXES, Row, read_rows, require
from loku_exp.errors import DataError

log = logging.getLogger(__name__)

STOCK_FILES = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "copa": "super_glue/copa/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "mathqa": "mathqa/mathqa.yaml",
    "piqa": "piqa/piqa.yaml",
    "pubmedqa": "pubmedqa/pubmedqa.yaml",
    "winogrande": "winogrande/default.yaml",
}
"""By task: where lm-eval describes it."""


class Choices(TypedDict):
    """Answers and their letters."""

    text: list[str]
    label: list[str]


TEXT, TEXTS = TypeAdapter(str), TypeAdapter(Annotated[list[str], Field(min_length=2)])
FIRST_OR_SECOND = TypeAdapter(Annotated[int, Field(ge=0, le=1)])
COLUMNS: dict[str, dict[str, TypeAdapter[Any]]] = {
    "arc_easy": {"question": TEXT, "choices": TypeAdapter(Choices), "answerKey": TEXT},
    "arc_challenge": {"question": TEXT, "choices": TypeAdapter(Choices), "answerKey": TEXT},
    "copa": {"premise": TEXT, "choice1": TEXT, "choice2": TEXT,
             "question": TypeAdapter(Literal["cause", "effect"]), "label": FIRST_OR_SECOND},
    "hellaswag": {"ctx": TEXT, "ctx_a": TEXT, "ctx_b": TEXT, "activity_label": TEXT,
                  "endings": TEXTS, "label": TypeAdapter(Annotated[int, Field(ge=0)])},
    "lambada_openai": {"text": TEXT},
    "mathqa": {"Problem": TEXT, "options": TEXT, "correct": TypeAdapter(Literal["a", "b", "c", "d", "e"])},
    "piqa": {"goal": TEXT, "sol1": TEXT, "sol2": TEXT, "label": FIRST_OR_SECOND},
    "pubmedqa": {"QUESTION": TEXT, "CONTEXTS": TypeAdapter(list[str]),
                 "final_decision": TypeAdapter(Literal["yes", "no", "maybe"])},
    "winogrande": {"sentence": TEXT, "option1": TEXT, "option2": TEXT,
                   "answer": TypeAdapter(Annotated[Literal["1", "2"], BeforeValidator(str)])},
}  # fmt: skip
"""By task: the hub's columns that its prompts and labels are made of, and what they hold.

A csv file has text alone; its numbers are made of it here.
"""

LOCAL_ONLY = {
    "pubmedqa": "its hub data set is a loading script, which `datasets` no longer runs, so this task "
    "works from a local file only",
}
"""By task: why the hub does not do."""


class LocalStockTask(ConfigurableTask):
    """A task of lm-eval as its yaml describes it, on other rows of the same schema.

    Args:
        name: of the task.
        rows: the documents; all of them are evaluated.

    Raises:
        DataError: a column holds values of different types.
    """

    def __init__(self, name: str, rows: list[Row]):
        self.rows = rows
        config = stock_config(name)
        config.pop("tag", None)
        for split in ("training_split", "validation_split"):
            config[split] = None
        super().__init__(config=config | {"test_split": "test"})

    def download(self, *_: Any, **__: Any) -> None:
        """Make the documents from the rows."""
        try:
            documents = datasets.Dataset.from_list([row.values for row in self.rows])
        except (TypeError, ValueError) as error:  # pyarrow's are among them
            raise DataError(
                f"{self.config.task}: the rows from {self.rows[0].place} on do not fit one table "
                f"({str(error).splitlines()[0]})"
            ) from error
        self.dataset = datasets.DatasetDict({"test": documents})


def stock_config(name: str) -> dict[str, Any]:
    """Return what lm-eval's yaml says of a task, its functions resolved."""
    return load_yaml(_folder() / STOCK_FILES[name])


def stock_manager() -> TaskManager:
    """Return a task manager that knows the nine tasks; indexing all of lm-eval takes 10 s."""
    folders = sorted({str((_folder() / file).parent) for file in STOCK_FILES.values()})
    return TaskManager(include_defaults=False, include_path=list(folders))


def local_rows(name: str, data_dir: Path | None) -> list[Row] | None:
    """Return a local copy of a task's data, or None.

    A file of that name whose first row lacks one of the hub's columns is another data set (see
    `loku_exp.evaluation.ability.local`) and is not taken.

    Raises:
        DataError: a row is malformed, or two files hold the same task.
    """
    if data_dir is None:
        return None
    found = {}
    for file in (data_dir / f"{name}{suffix}" for suffix in SUFFIXES):
        if file.is_file():
            rows = read_rows(file)
            if set(COLUMNS[name]) <= rows[0].values.keys():
                require(rows, COLUMNS[name])
                found[file.name] = [_typed(row, COLUMNS[name]) for row in rows]
    if len(found) > 1:
        raise DataError(f"{data_dir}: {' and '.join(found)} hold the same task; keep one of them")
    return next(iter(found.values()), None)


def stock_task(name: str, data_dir: Path | None, manager: TaskManager) -> Any:
    """Return a task of lm-eval, on a local copy of its data where there is one, else the hub's.

    Raises:
        DataError: a local copy is malformed.
        OSError, ValueError, RuntimeError: as `datasets` raises them; the hub's data cannot be had.
    """
    rows = local_rows(name, data_dir)
    if rows is not None:
        log.info("%s: %d rows of %s", name, len(rows), data_dir)
        return LocalStockTask(name, rows)
    return manager.load([name])["tasks"][name]


def reason(name: str, error: Exception, data_dir: Path | None) -> str:
    """Return why a task is missing: the first line of the error, and what else is known."""
    said = (str(error).splitlines() or [type(error).__name__])[0]
    if name in LOCAL_ONLY:
        said += f"; {LOCAL_ONLY[name]}"
    task = name.removesuffix("_predecessor")
    for file in (f"{task}{suffix}" for suffix in SUFFIXES):
        if task in COLUMNS and data_dir is not None and (data_dir / file).is_file():
            said += f"; {file} lacks the hub's columns ({', '.join(COLUMNS[task])})"
    return said


def _typed(row: Row, columns: dict[str, TypeAdapter[Any]]) -> Row:
    """Return a row whose columns hold what they must.

    Raises:
        DataError: one does not.
    """
    values = dict(row.values)
    for name, kind in columns.items():
        try:
            values[name] = kind.validate_python(values[name])
        except ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Input ")
            raise DataError(
                f"{row.place}: malformed ('{name}' is {shortened(values[name])}, but {rule})"
            ) from error
    if wrong := _contradiction({name: values[name] for name in columns}):
        raise DataError(f"{row.place}: malformed ({wrong})")
    return Row(row.place, values)


def _contradiction(values: dict[str, Any]) -> str | None:
    """Return how columns that are right by themselves contradict each other.

    lm-eval ends with such a row in the middle of an evaluation, or counts it as answered wrongly.
    """
    if "answerKey" in values:
        texts, letters = values["choices"]["text"], values["choices"]["label"]
        if len(texts) != len(letters):
            return f"'choices' has {len(texts)} texts and {len(letters)} labels"
        if values["answerKey"] not in letters:
            return f"'answerKey' is {values['answerKey']!r}, of the labels {', '.join(letters)}"
    if "endings" in values and values["label"] >= len(values["endings"]):
        return f"'label' is {values['label']}, of {len(values['endings'])} endings from 0"
    if "sentence" in values and "_" not in values["sentence"]:
        return "'sentence' has no _ for an option to stand in"
    return None


def _folder() -> Path:
    return Path(lm_eval.tasks.__file__).parent
