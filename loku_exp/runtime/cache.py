"""Content-addressed cache entries: whole or absent, checked, locked.

An entry is a folder named by the digest of its recipe. It is built aside and renamed whole, so a
killed process never leaves one that looks finished; a lock per entry lets parallel runs wait for
each other instead of building twice. A manifest holds the SHA-256 of every file. It is compared where an
entry is used, once a process as long as size and time of a file stay: 1.4 s a gigabyte on a core of an AMD
EPYC, where loading such weights takes longer.
"""

import fnmatch
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from loku_exp.runtime.whole_files import on_disk, writing

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
SUM = 64  # hex digits of a manifest's own sum


def digest(content: Any, length: int = 16) -> str:
    """Return hex digits over the canonical JSON of plain data (1e-4 and 0.0001 agree)."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, read once a process as long as size and time stay."""
    status = file.stat()
    return _file_digest(file.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _file_digest(file: Path, size: int, modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, without: tuple[str, ...] = ()) -> str:
    """Return a digest of all files of a folder, names and contents, wherever it lies.

    Args:
        folder: read with all that is below it.
        without: patterns of names of files and folders that do not count.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder) for path in files]
    counted = [
        [str(name), file_digest(path)]
        for name, path in zip(names, files, strict=True)
        if not any(fnmatch.fnmatch(part, pattern) for part in name.parts for pattern in without)
    ]
    return digest(counted)


class Cache:
    """A folder of entries, by kind.

    Args:
        root: made when first used; ``~`` is the home folder.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()

    def path(self, kind: str, recipe: dict[str, Any]) -> Path:
        """Return where the entry of a recipe is, or would be."""
        return self.root / kind / digest(recipe)

    def has(self, kind: str, recipe: dict[str, Any]) -> bool:
        """Return whether the entry is there and whole."""
        return is_whole(self.path(kind, recipe))

    def entry(self, kind: str, recipe: dict[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the entry's folder, building it first where it is absent.

        Args:
            kind: e.g. ``models``, ``fisher``, ``responses``.
            recipe: everything the content depends on, as plain data.
            build: fills an empty folder; what it raises leaves no entry behind.
        """
        path = self.path(kind, recipe)
        if path.is_dir() and damage(path) is None:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            return whole_folder(path, build, recipe)


def whole_folder(path: Path, build: Callable[[Path], None], recipe: dict[str, Any]) -> Path:
    """Return a folder that is as it was written, building it where it is absent or damaged.

    Callers hold a lock.

    Args:
        path: of the folder.
        build: fills an empty folder; what it raises leaves none behind.
        recipe: what it is made by, as plain data.
    """
    broken = damage(path) if path.exists() else "it is not there"
    if broken is not None:  # else another process built it meanwhile
        if path.exists():
            set_aside(path, broken)
        write_folder(path, build, recipe)
    return path


def set_aside(path: Path, broken: str) -> None:
    """Rename what is damaged, so that it can be looked at and is not used.

    Args:
        path: of a file or folder.
        broken: what is wrong with it, for people.
    """
    aside = path.with_name(f"damaged-{path.name}-{time.time_ns()}")
    path.rename(aside)
    log.warning("%s is damaged (%s) and was set aside as %s", path, broken, aside.name)


def write_folder(path: Path, build: Callable[[Path], None], recipe: dict[str, Any]) -> None:
    """Build a folder aside, with a manifest of its files, and rename it whole.

    Callers hold a lock, so a folder aside that is there already was left by a killed process.

    Raises:
        StorageError: there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside_of = re.compile(rf"\.{re.escape(path.name)}-[0-9a-f]{{8}}")
    for left in path.parent.iterdir():
        if aside_of.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    aside.mkdir()
    try:
        with writing(path):
            build(aside)
            seal(aside, recipe)
            os.replace(aside, path)
            on_disk(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def seal(folder: Path, recipe: dict[str, Any], may_go: tuple[str, ...] = ()) -> None:
    """Write a folder's manifest: size and SHA-256 of every file, all of them on the disk before it.

    Its own sum is in it too, for a recipe names what an adapter belongs to.

    Args:
        folder: complete.
        recipe: what it was made by, as plain data.
        may_go: patterns of files that may be removed later.
    """
    files: dict[str, dict[str, Any]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        on_disk(file)
        files[name] = {"size": file.stat().st_size, "sha256": file_digest(file)}
        if any(fnmatch.fnmatch(name, pattern) for pattern in may_go):
            files[name]["may_go"] = True
    manifest = folder / MANIFEST
    content: dict[str, Any] = {"recipe": recipe, "files": files}
    content |= {"sum": digest(content, SUM)}
    manifest.write_text(json.dumps(content, indent=1), encoding="utf-8")
    on_disk(manifest)


def is_whole(path: Path) -> bool:
    """Return whether a folder has its manifest and every file at its size; a quick look, see `damage`."""
    try:
        return all((path / n).stat().st_size == f["size"] for n, f in _files_of(path).items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def damage(path: Path) -> str | None:
    """Return what is wrong with a folder, by its manifest; None where every file is as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"].items())
        own = manifest.pop("sum", None)  # earlier versions wrote none
        if own is not None and own != digest(manifest, SUM):
            return f"its {MANIFEST} is not what was written"
    except OSError:
        return f"it has no {MANIFEST}"
    except (ValueError, KeyError, AttributeError):
        return f"its {MANIFEST} cannot be read"
    for name, written in files.items():
        file = path / name
        if not isinstance(written, dict):
            return f"its {MANIFEST} is of an earlier version"
        if not file.is_file():
            if written.get("may_go"):
                continue
            return f"{name} is missing"
        if file.stat().st_size != written.get("size"):
            return f"{name} has {file.stat().st_size} bytes, {written.get('size')} were written"
        if file_digest(file) != written.get("sha256"):
            return f"{name} is not what was written"
    return None


def _files_of(path: Path) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
    return dict(files.items())
