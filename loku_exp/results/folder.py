"""The folder of a run: claimed by one process, finished or not."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from loku_exp.errors import HeldError
from loku_exp.runtime import distributed
from loku_exp.runtime.events import Finished, tell
from loku_exp.runtime.finished import DONE, write_mark
from loku_exp.runtime.whole_files import drop_half_written

LOCK = ".lock"
PAGE = "page"  # folder of the report over this run alone
HELD = "another process is working on this run in {folder}"  # which a sweep reads again
OF_RUN = {DONE, "metrics.json", "config.yaml"}  # any of them makes a folder one of a run


def mark_done(folder: Path, run: str) -> None:
    """Mark a run as finished."""
    write_mark(folder, run)
    tell(Finished(folder))


def run_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of runs at any depth, in order; what lies inside one is not looked at."""
    for place, folders, files in os.walk(root):
        if OF_RUN & set(files):
            folders.clear()
            yield Path(place)
        folders.sort()


@contextmanager
def claimed(folder: Path, finished: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Make a run's folder, and hold it for this process (or those that train one run together).

    Args:
        folder: of the run.
        finished: whether there is nothing left to do in it.

    Raises:
        HeldError: another process works in it, or has finished it since it was looked at.
    """
    if distributed.rank() > 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=1)  # longer than `is_held` holds it
    try:
        lock.acquire()
    except Timeout:
        raise HeldError(HELD.format(folder=folder)) from None
    try:
        if finished():
            raise HeldError(f"{folder} has just finished; the same command shows it")
        drop_half_written(folder)
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Return whether a process works on a run; without a claim of one's own."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
