"""When a process ends: in order when it is asked to, and never long after the one that started it."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

PARENT = "LOKU_PARENT"  # environment variable: the process that starts and watches this one


def end_in_order() -> None:
    """Treat SIGTERM like Ctrl-C: what was begun is closed, and processes started here end too."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def end_with_starter() -> None:
    """End in order once the process named by `PARENT` is gone, even where it was killed."""
    parent = os.environ.get(PARENT)
    if parent:
        _watch(lambda: os.getppid() != int(parent), lambda: os.kill(os.getpid(), signal.SIGTERM))


def end_with_parent() -> None:
    """End at once with the parent of a ``multiprocessing`` child, which leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        _watch(lambda: bool(multiprocessing.connection.wait([sentinel], 0)), lambda: os._exit(1))


def _watch(gone: Callable[[], bool], end: Callable[[], None]) -> None:
    def watch() -> None:
        while not gone():
            time.sleep(0.5)
        end()

    threading.Thread(target=watch, daemon=True).start()
