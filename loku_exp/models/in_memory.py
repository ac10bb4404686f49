"""A model of transformers in memory, written where a run can begin from it."""

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

from loku_exp.errors import ConfigError
from loku_exp.runtime.cache import folder_digest, set_aside


def check_saveable(model: Any, tokenizer: Any, called: str = "model") -> None:
    """Check that a model and a tokenizer are such, and the model itself.

    Args:
        model: of transformers.
        tokenizer: its own.
        called: what the model is to the user.

    Raises:
        ConfigError: they are not, or it carries an adapter.
    """
    for name, given in ((called, model), ("tokenizer", tokenizer)):
        if not hasattr(given, "save_pretrained"):
            raise ConfigError(
                f"{name}: should be one of transformers in memory, not {type(given).__name__}; a folder or "
                "hub id is for the command line: python -m loku_exp model=hf model.path=DIR"
            )
    if hasattr(model, "peft_config"):
        raise ConfigError(
            f"the {called} carries an adapter; give the model itself, e.g. {called}.merge_and_unload()"
        )


def _plain(tokenizer: Any) -> Any:
    """Return a tokenizer without the padding and truncation of its last call, which are not its own."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return tokenizer
    plain = copy.deepcopy(tokenizer)
    plain.backend_tokenizer.no_padding()
    plain.backend_tokenizer.no_truncation()
    return plain


def saved_model(model: Any, tokenizer: Any, place: Path) -> Path:
    """Write a model with its tokenizer into a folder named by its content, if it is not there yet."""
    check_saveable(model, tokenizer)
    parent = place / "models"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".") as aside:
        model.save_pretrained(aside)
        _plain(tokenizer).save_pretrained(aside)
        folder = parent / folder_digest(Path(aside))
        if folder.is_dir() and folder_digest(folder) != folder.name:
            set_aside(folder, "it is not what was written")
        if not folder.is_dir():
            os.rename(aside, folder)
            os.mkdir(aside)  # for the context to remove
    return folder.resolve()
