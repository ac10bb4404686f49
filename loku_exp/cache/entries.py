"""What lies in the cache, and taking entries out of it while other programs may be using it."""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from loku_exp.runtime.cache import is_whole

State = Literal["whole", "damaged", "unfinished"]
ANSWERS = "answers"  # kind of entries that grow, and so have no manifest
OURS = re.compile(
    r"\.?(damaged-)?\.?([0-9a-f]{16})([-.]|$)"
)  # an entry, begun, set aside, half gone
DAY = 86400  # seconds


@dataclass(frozen=True)
class Entry:
    """A folder of the cache, or a file of it that no folder holds.

    Attributes:
        path: of it.
        kind: e.g. ``models``, ``evaluations``, ``fisher``.
        size: bytes of its files.
        written: when its newest file was, seconds since 1970.
        state: ``unfinished`` is what a killed or a running program has begun.
    """

    path: Path
    kind: str
    size: int
    written: float
    state: State

    @property
    def days(self) -> float:
        """Return how long ago its newest file was written; not before now, whatever a clock said."""
        return max(0.0, (time.time() - self.written) / DAY)


def entries_in(root: Path) -> list[Entry]:
    """Return what programs of this package keep in a cache, the largest first; locks are not counted.

    What is not named as they name it is somebody else's, and is neither listed nor removed.
    """
    folders = sorted(path for path in root.glob("*") if path.is_dir())
    found = [
        _entry(path, folder.name)
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix != ".lock" and OURS.match(path.name)
    ]
    there = [entry for entry in found if entry is not None]
    return sorted(there, key=lambda entry: (-entry.size, entry.path))


def remove(chosen: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Remove entries, but none that a program is building.

    An entry is renamed before it is deleted, so that a killed removal leaves none that looks whole. A
    program that has read the weights keeps them; one that is about to will make them anew.

    Returns:
        What was removed, and what was kept because it is in use.
    """
    removed, kept = [], []
    for entry in chosen:
        try:
            with FileLock(_lock_of(entry), timeout=0):
                _delete(entry.path)
            removed.append(entry)
        except Timeout:
            kept.append(entry)
    return removed, kept


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f".{path.name.lstrip('.')}-{uuid.uuid4().hex[:8]}")
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


def _lock_of(entry: Entry) -> Path:
    """Return the lock of an entry, or of the one that a folder was begun or set aside for."""
    path = entry.path
    if entry.kind == ANSWERS and entry.state == "whole":
        return path / f"{ANSWERS}.lock"
    ours = OURS.match(path.name)
    return path.with_name(f"{ours[2] if ours else path.name}.lock")


def _entry(path: Path, kind: str) -> Entry | None:
    """Return an entry; None where another program has just renamed or removed it."""
    try:
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        own = path.lstat()
    except FileNotFoundError:
        return None
    stats = [status for file in files if (status := _status(file)) is not None]
    size = sum(status.st_size for status in stats)
    written = max((status.st_mtime for status in stats), default=own.st_mtime)
    return Entry(path, kind, size, written, _state(path))


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:  # another program has just removed it
        return None


def _state(path: Path) -> State:
    if path.name.startswith("damaged-"):
        return "damaged"
    if path.name.startswith(".") or path.suffix == ".unfinished":
        return "unfinished"
    if path.is_dir() and not is_whole(path) and path.parent.name != ANSWERS:
        return "damaged"
    return "whole"
