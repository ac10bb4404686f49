"""Break a process at one of its file operations, whichever library does it.

Python tells an audit hook of every file that is opened, renamed, linked or removed; what it does not tell
of (``fsync``, and the writer of safetensors, which is Rust) is wrapped. Each operation inside the folder
that is watched has a number, the same in every process that does the same.
"""

import errno
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOLD = ("open", "os.rename", "os.remove", "os.link")
NEED_NO_ROOM = ("fsync", "os.remove")
HOLD_NOTHING = ("run.log", "console.log", ".lock")


class Crash(BaseException):
    """What nobody catches: the process ends, and everything on its way out is done."""


class Injection:
    """Counts file operations inside a folder, and breaks one.

    Args:
        place: the folder.
        at: number of the operation, from 1; 0 breaks none.
        how: ``raise`` before the operation, ``kill`` (SIGKILL) with the operation half done, ``full`` (no
            room from this operation on), or ``read-only`` (nothing can be written from it on).
        listed: where to note all operations at the end; None for nowhere.
    """

    def __init__(self, place: Path, at: int = 0, how: str = "raise", listed: Path | None = None):
        self.place, self.at, self.how, self.listed = str(place), at, how, listed
        self.operations: list[str] = []
        self._inside = False

    def begin(self) -> None:
        """Watch this process until it ends: a hook cannot be taken away."""
        import safetensors.torch

        fsync: Any = os.fsync
        serialize: Any = safetensors.torch.serialize_file

        def watched_fsync(handle: int) -> None:
            file = os.readlink(f"/proc/self/fd/{handle}")
            self._seen("fsync", file, lambda: _halve(file))
            fsync(handle)

        def watched_serialize(tensors: Any, file: Any, *rest: Any, **options: Any) -> None:
            def half() -> None:
                serialize(tensors, file, *rest, **options)
                _halve(file)

            self._seen("write", file, half)
            serialize(tensors, file, *rest, **options)

        vars(os)["fsync"] = watched_fsync
        vars(safetensors.torch)["serialize_file"] = watched_serialize
        sys.addaudithook(self._told)

    def note(self) -> None:
        """Note which operations there were."""
        if self.listed is not None:
            self.listed.write_text("".join(f"{operation}\n" for operation in self.operations))

    def _told(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._inside or event not in TOLD or not isinstance(arguments[0], str | os.PathLike):
            return
        path = arguments[0]
        if event == "open":
            _, mode, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._seen("write", path, lambda: _begun(path, str(mode or "w")))
        elif event in ("os.rename", "os.link"):
            target = arguments[1]
            done = os.replace if event == "os.rename" else os.link
            self._seen(event, target, lambda: done(path, target))
        else:
            self._seen(event, path, lambda: None)

    def _seen(self, operation: str, path: Any, half: Callable[[], None]) -> None:
        path = os.path.abspath(path)
        if not path.startswith(self.place) or path.endswith(HOLD_NOTHING) or self._inside:
            return
        self.operations.append(f"{operation} {path.removeprefix(self.place)}")
        number = len(self.operations)
        if self.how in ("full", "read-only") and 0 < self.at <= number:
            if operation not in NEED_NO_ROOM:
                code = errno.ENOSPC if self.how == "full" else errno.EROFS
                raise OSError(code, os.strerror(code), path)
        elif number == self.at and self.how == "raise":
            raise Crash(self.operations[-1])
        elif number == self.at:
            self._inside = True
            half()
            os.kill(os.getpid(), signal.SIGKILL)


def _begun(path: Any, mode: str) -> None:
    """Leave a file as a write does that did not come to its end."""
    with open(path, "ab" if "a" in mode else "wb") as stream:
        stream.write(b'{"half')


def _halve(file: Any) -> None:
    """Leave half of what was written: the rest was not on the disk yet."""
    if os.path.isfile(file):
        os.truncate(file, os.path.getsize(file) // 2)


class ClockBackwards:
    """A clock that goes back by a minute whenever it is looked at."""

    def begin(self) -> None:
        """Turn this process's clock."""
        now, looks = time.time(), itertools.count()
        time.time = lambda: now - 60.0 * next(looks)
        time.time_ns = lambda: int(time.time() * 1e9)

    def note(self) -> None:
        """Note nothing."""
