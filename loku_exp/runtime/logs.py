"""What a run says while it works: on the terminal, and in the run's log file."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = ("transformers", "lm_eval", "peft", "datasets", "accelerate", "httpx", "filelock")
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def start_logging() -> None:
    """Show this package's messages on the terminal; libraries speak only of errors there."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    terminal.addFilter(_for_people)
    root = logging.getLogger()
    root.handlers[:] = [terminal]
    root.setLevel(logging.INFO)
    for library in LIBRARIES:
        logger = logging.getLogger(library)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)
    warnings.simplefilter("default")


class Stopwatch:
    """Wall time by stage: ``with watch("unlearning"): ...`` adds to ``watch.seconds["unlearning"]``."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``14 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


@contextmanager
def log_file(file: Path) -> Iterator[None]:
    """Write everything to a file as well: libraries' messages, and the traceback of a failure."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
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


def _for_people(record: logging.LogRecord) -> bool:
    return record.name.startswith("loku_exp") or record.levelno >= logging.ERROR
