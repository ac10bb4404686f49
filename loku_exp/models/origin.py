"""Where weights come from, where that must be said: a small file beside them, which everything copies.

Weights that went through four bits are real, and are not quite those their makers published.
"""

import json
import shutil
from pathlib import Path

from loku_exp.errors import ModelError
from loku_exp.runtime.hub import is_local

ORIGIN_FILE = "origin.json"


def origin_of(path: str | None) -> str | None:
    """Return what tables must say of weights, e.g. ``dequantised from Q4_1``; None where there is nothing.

    Args:
        path: folder or hub id.

    Raises:
        ModelError: the file that says it cannot be read.
    """
    file = Path(path or "").expanduser() / ORIGIN_FILE
    if path is None or not is_local(path) or not file.is_file():
        return None
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["origin"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file} does not say where the weights come from; write it again: "
            "python -m loku_exp.from_gguf FILE --to DIR"
        ) from error


def hand_on_origin(path: str, folder: Path) -> None:
    """Let a model that was made of another one say the same of its weights.

    Args:
        path: folder or hub id of the one it was made of.
        folder: its own.
    """
    if origin_of(path) is not None:
        shutil.copyfile(Path(path).expanduser() / ORIGIN_FILE, folder / ORIGIN_FILE)
