"""lm-eval's words for a model, and this bench's own, as overrides of its configuration.

``--model_args`` and ``--metadata`` take both: ``pretrained=DIR``, ``model=phi``, ``dataset.path=DIR``,
``evaluation.rows=all``. lm-eval hands the former to the model, and both to the tasks. A key for the tasks
of one dataset alone has its name before it: ``tofu.evaluation.rows=all``.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loku_exp.config.composing import quoted
from loku_exp.config.groups import options_of
from loku_exp.errors import ConfigError, UserError, nearest

LM_EVAL = {
    "pretrained": "model.path",
    "tokenizer": "model.tokenizer",
    "revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "max_length": "model.context_length",
}
"""By lm-eval's word: the key that it stands for, where a text is encoded by it."""
SECTIONS = ("model", "dataset", "evaluation", "reference")
KEY = re.compile(rf"\b({'|'.join(SECTIONS)})\.[a-z]")
DATA = "LOKU_DATA"
"""The environment variable that names a folder with TOFU's files in ``tofu/`` and TDEC's in ``tdec/``."""
OF_FOLDER = ("tofu", "tdec")


def model_overrides(words: Mapping[str, Any], sections: Iterable[str] = SECTIONS) -> list[str]:
    """Return the overrides that words stand for; words that are neither lm-eval's nor ours are left out.

    Args:
        words: as lm-eval has read them from a command line.
        sections: of the configuration whose keys are taken.
    """
    found = {}
    for name, value in words.items():
        key = LM_EVAL.get(name, name)
        if key.partition(".")[0] in sections:
            found[key] = value
    if "model" not in found:
        found = {"model": "hf"} | found
    if "model.path" in found:
        found = {"model.tokenizer": found["model.path"], "model.weights": "pretrained"} | found
    return [f"{key}={_written(value)}" for key, value in found.items()]


def task_overrides(
    dataset: str, words: Mapping[str, Any], fixed: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the overrides that evaluate a model of these words on a dataset.

    Args:
        dataset: of ``conf/dataset``.
        words: of a command line.
        fixed: knobs of the dataset that a task sets itself.

    Raises:
        ConfigError: the environment names a folder that lacks the dataset, or a key is of nothing.
    """
    _check_known(words)
    mine = f"{dataset}."
    alone = {n.removeprefix(mine): value for n, value in words.items() if n.startswith(mine)}
    words = {**words, **alone}
    given: dict[str, Any] = {"evaluation.abilities": [], "reference.source": "none"}
    if dataset in OF_FOLDER and os.environ.get(DATA) and "dataset.path" not in words:
        given["dataset.path"] = str(_folder(dataset))
    if "reference.path" in words:
        given["reference.source"] = "log"
    given |= words
    given |= {f"dataset.{name}": value for name, value in fixed.items()}
    return (*model_overrides(given), f"dataset={dataset}", "unlearn=false")


@contextmanager
def in_lm_evals_words(where_keys_go: str = "") -> Iterator[None]:
    """Say errors with lm-eval's words for the keys that have one; for others, where those go."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for word, key in LM_EVAL.items():
            text = text.replace(f"{key}=", f"{word}=")
        more = [where_keys_go] if where_keys_go and KEY.search(text) else []
        raise ConfigError([*text.splitlines(), *more]) from error


def _check_known(words: Mapping[str, Any]) -> None:
    """Check that each key is of a section, or of one after a dataset's name; lm-eval's words have no dot.

    Raises:
        ConfigError: one is not, and would go unheard.
    """
    known = [*SECTIONS, *options_of("dataset", None)]
    unheard = [key for key in words if "." in key and key.partition(".")[0] not in known]
    if unheard:
        raise ConfigError(
            [
                f"--metadata {key}: no such key{nearest(key.partition('.')[0], known)}; a key begins with "
                f"{', '.join(SECTIONS)}, or with a dataset's name before these"
                for key in unheard
            ]
        )


def _folder(dataset: str) -> Path:
    folder = Path(os.environ[DATA]).expanduser() / dataset
    if not folder.is_dir():
        raise ConfigError(
            f"{DATA}={os.environ[DATA]}: it must have a folder '{dataset}' with the data; or unset it, and "
            "give --metadata dataset.path=DIR"
        )
    return folder


def _written(value: Any) -> str:
    """Return a value as an override has it; a text with special characters, or an umlaut, is quoted."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if re.fullmatch(r"[\w./-]+", value, re.ASCII) else quoted(value)
