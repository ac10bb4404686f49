"""What a run says while it works: on the terminal, and in the run's log file."""

import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from tqdm.auto import tqdm

from loku_exp.runtime import distributed
from loku_exp.runtime.whole_files import write_text

log = logging.getLogger(__name__)

LIBRARIES = ("transformers", "lm_eval", "peft", "datasets", "accelerate", "httpx", "filelock")
SECONDS_BETWEEN_LINES = 30.0
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class AboveBars(logging.StreamHandler[TextIO]):
    """A handler that takes the bars of tqdm away while it writes a line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line."""
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def start_logging() -> None:
    """Show this package's messages on the terminal; libraries speak only of errors there.

    Of several processes that train one run all but the first are silent, here and in the log file, until
    something fails.
    """
    terminal = AboveBars(sys.stderr)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    terminal.addFilter(_for_people)
    root = logging.getLogger()
    root.handlers[:] = [terminal]
    root.setLevel(logging.INFO if distributed.rank() == 0 else logging.ERROR)
    for library in LIBRARIES:
        logger = logging.getLogger(library)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    # tqdm's own lock is a semaphore, which a process that is ended leaves behind with a warning.
    tqdm.set_lock(threading.RLock())


class Progress:
    """How far a long work is: a bar on a terminal, and now and then a line in the log.

    The lines come at most every `SECONDS_BETWEEN_LINES`, so short work has none. They are in the run's log
    file in any case, and on stderr where it is no terminal.

    Args:
        total: of the work.
        verb: what is done, e.g. ``scoring``.
        unit: of what, singular.
        done: of it, before this process began.
        position: line of the bar, where several processes draw one.
    """

    def __init__(self, total: int, verb: str, unit: str, *, done: int = 0, position: int = 0):
        self.total, self.verb, self.unit = total, verb, unit
        self.begun, self.done = done, done
        self.start = self.said = time.monotonic()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=verb,
            unit=unit,
            position=position,
            leave=False,
            disable=None,
        )

    def update(self, count: int = 1, **values: str) -> None:
        """Note that so much more is done, and values to show beside it, e.g. a loss."""
        self.done += count
        self.bar.update(count)
        if values:
            self.bar.set_postfix(values, refresh=False)
        if time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            log.info("%s", self._line(values))

    def close(self) -> None:
        """End the bar."""
        self.bar.close()

    def _line(self, values: dict[str, str]) -> str:
        each = (self.said - self.start) / max(1, self.done - self.begun)
        left = each * (self.total - self.done)
        end = datetime.now() + timedelta(seconds=left)
        rate = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
        known = "".join(f", {name} {value}" for name, value in values.items())
        return (
            f"{self.verb}: {self.done} of {self.total} {self.unit}s{known}, {rate}, about "
            f"{duration(left)} left, until {end:%H:%M}"
        )


@contextmanager
def progress(total: int, verb: str, unit: str) -> Iterator[Progress]:
    """Show the progress of what is done inside; see `Progress`."""
    shown = Progress(total, verb, unit)
    try:
        yield shown
    finally:
        shown.close()


class Stopwatch:
    """Wall time by stage: ``with watch("unlearning"): ...`` adds to ``watch.seconds["unlearning"]``.

    Kept in a file, it goes on where an interrupted run was: `seconds` is of all attempts together, and
    `started` (ISO time) of the first.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self._file: Path | None = None

    def keep_in(self, file: Path) -> None:
        """Go on from a file, and keep what is timed from now on in it, where this process is the first."""
        self._file = file if distributed.rank() == 0 else None
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            self.seconds, self.started = dict(kept["seconds"]), str(kept["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # none yet

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage, however it ends."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
            if self._file is not None:
                kept = {"started": self.started, "seconds": self.seconds}
                write_text(self._file, json.dumps(kept) + "\n")


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``14 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


@contextmanager
def log_file(file: Path) -> Iterator[None]:
    """Write everything to a file as well: libraries' warnings, and the traceback of a failure."""
    file.parent.mkdir(
        parents=True, exist_ok=True
    )  # of processes that train together any may be first
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(_ours_or_a_warning)  # lm-eval alone tells 60 lines an evaluation
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException:
        failure = (
            __name__,
            logging.ERROR,
            __file__,
            0,
            "the run stopped here",
            None,
            sys.exc_info(),
        )
        handler.emit(logging.LogRecord(*failure))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _ours_or_a_warning(record: logging.LogRecord) -> bool:
    return record.name.startswith("loku_exp") or record.levelno >= logging.WARNING


def _for_people(record: logging.LogRecord) -> bool:
    if record.name == log.name and sys.stderr.isatty():
        return False  # the terminal has the bar
    return record.name.startswith("loku_exp") or record.levelno >= logging.ERROR
