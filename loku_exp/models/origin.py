"""Where weights come from, where that must be said: a small file beside them, which everything copies.

Weights that went through four bits are real, and are not quite those their makers published. Those of a toy
stay a toy's in whatever folder they are handed on.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from loku_exp.errors import ModelError
from loku_exp.runtime.hub import is_local

ORIGIN_FILE = "origin.json"
SMALL = {"toy": "TOY model", "from_scratch": "small model trained FROM SCRATCH"}


@dataclass(frozen=True)
class Origin:
    """What tables must say of weights.

    Attributes:
        origin: where they come from, e.g. ``dequantised from Q4_1``.
        kind: ``pretrained``, or one of `SMALL`.
    """

    origin: str
    kind: str = "pretrained"

    @property
    def label(self) -> str:
        """What a run of them is labelled with."""
        return SMALL.get(self.kind, f"pretrained, {self.origin}")


def origin_of(path: str | None) -> Origin | None:
    """Return what tables must say of weights; None where there is nothing.

    Args:
        path: folder or hub id.

    Raises:
        ModelError: the file that says it cannot be read.
    """
    file = Path(path or "").expanduser() / ORIGIN_FILE
    if path is None or not is_local(path) or not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Origin(str(content["origin"]), str(content.get("kind", "pretrained")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
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


def write_origin(kind: str, folder: Path) -> None:
    """Say of a model that was trained from nothing what it is.

    Args:
        kind: one of `SMALL`.
        folder: its own.
    """
    origin = Origin("trained from random weights", kind)
    (folder / ORIGIN_FILE).write_text(json.dumps(asdict(origin), indent=1) + "\n", encoding="utf-8")
