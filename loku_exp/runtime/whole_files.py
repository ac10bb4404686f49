"""Files written whole or not at all, and on the disk before anything says that they are."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loku_exp.errors import StorageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that write from C++ or Rust raise their own types and keep no number.
NO_ROOM_TEXTS = (*map(os.strerror, NO_ROOM), "iostream error", "inline_container.cc")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: there is no room for it.
    """
    write_file(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a file written aside and rename it: whole or not at all.

    Args:
        path: of the file.
        write: writes its content to the path it is given, which has the same suffix.

    Raises:
        StorageError: there is no room for it.
    """
    aside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with writing(path):
            write(aside)
            on_disk(aside)
            os.replace(aside, path)
            on_disk(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def drop_half_written(folder: Path) -> None:
    """Remove what killed processes were writing aside; callers hold the folder."""
    for aside in folder.glob(".*"):
        if re.match(r"\.\d+\.", aside.name):
            aside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file or folder that was being written where there was no room for it.

    Raises:
        StorageError: the disk is full, or a quota or a limit of file sizes is reached.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # whatever a library makes of it
        number = getattr(error, "errno", None)
        if number not in NO_ROOM and not any(text in str(error) for text in NO_ROOM_TEXTS):
            raise
        raise StorageError(
            f"{path} cannot be written ({str(error).splitlines()[0]}); make room, or name another "
            "folder (output_dir, cache_dir). Nothing half-written is left; the same command goes on"
        ) from error


def on_disk(path: Path) -> None:
    """Have a file, or a folder's entries, on the disk before anything says that they are."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(handle)
