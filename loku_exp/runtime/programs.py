"""How the programs of this package end: with one line a mistake, and a traceback where one is asked for."""

import argparse
import io
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loku_exp.errors import ConfigError, DataError, StorageError, UserError
from loku_exp.runtime import distributed
from loku_exp.runtime.whole_files import NO_ROOM

DEBUG = "LOKU_DEBUG"  # environment variable: show where an error comes from
INTERRUPTED = 130  # as shells say of Ctrl-C
UNHEARD = 141  # as shells say of who wrote to a program that has ended, e.g. head
UNFORESEEN = 70  # "internal software error", as of sysexits.h
UNSEEN = "nobody foresaw this: --debug shows more"
HOMELESS = "there is no such home folder here; set HOME, or write it in full"
PACKAGE = Path(__file__).parents[1]
MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_cpu.cpp")


def parser_of(name: str, description: str | None, **options: Any) -> argparse.ArgumentParser:
    """Return a parser of ``python -m NAME`` that keeps its description's lines and knows ``--debug``."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description=description, formatter_class=shape, **options
    )
    add_debug(parser)
    return parser


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Give a parser ``--debug``."""
    parser.add_argument("--debug", action=_Debug, nargs=0, help="show where an error comes from")


@contextmanager
def ending() -> Iterator[None]:
    """End with a line a problem and its exit code, or as a shell expects of Ctrl-C.

    What nobody foresaw is a line too, exit code 70: a user never has to read a traceback, and ``--debug``
    shows it. What a function of the user's own raises is named with its place, exit code 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="replace"
        )  # a path that an ascii terminal cannot show ends nothing
    try:
        yield
    except KeyboardInterrupt:
        _say(["interrupted; the same command goes on from what was kept"], "")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # for what is flushed at the end
        raise SystemExit(UNHEARD) from None
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        # what each of several processes finds is said by the first
        lines, code = said(error)
        if distributed.rank() == 0 or not isinstance(error, ConfigError | DataError):
            _say(lines)
        raise SystemExit(code) from None


def said(error: Exception) -> tuple[list[str], int]:
    """Return what is said of an error, a line a problem, and the exit code."""
    if isinstance(error, UserError):
        return [line for line in str(error).splitlines() if line.strip()], error.exit_code
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or any(mark in text.lower() for mark in MEMORY):
        return [
            f"memory ran out ({text[:160]}); take fewer at a time: training.micro_batch_size=1, "
            "evaluation.batch_tokens=1024, training.gradient_checkpointing=true, or model.dtype=bfloat16; "
            "the same command goes on from what was kept"
        ], UserError.exit_code
    if isinstance(error, RuntimeError) and "home directory" in text:  # as pathlib says of ~
        return [f"a path begins with ~, and {HOMELESS}"], UserError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        kind = StorageError if error.errno in NO_ROOM else UserError
        return [f"{error.filename}: {error.strerror or text}"], kind.exit_code
    what = f"{type(error).__name__}: {text or 'it says nothing'}"
    frame = _innermost(error)
    if frame is None:
        return [f"{what} (outside of loku_exp); {UNSEEN}"], UNFORESEEN
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    if Path(frame.filename).is_relative_to(PACKAGE):
        return [f"{what} ({place}); {UNSEEN}"], UNFORESEEN
    own = f"{frame.name} of {frame.filename}, line {frame.lineno}, fails: {what}"
    return [f"{own}; it is not of loku_exp: mend it there; --debug shows more"], UserError.exit_code


def _innermost(error: Exception) -> traceback.FrameSummary | None:
    """Return the innermost line that is of this package or of a user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")]

    def is_ours(file: Path) -> bool:
        return file.is_relative_to(PACKAGE) or not any(map(file.is_relative_to, foreign))

    return next((f for f in reversed(frames) if is_ours(Path(f.filename))), None)


def _say(lines: list[str], mark: str = "error: ") -> None:
    for line in lines:
        print(f"{mark}{line}", file=sys.stderr)


class _Debug(argparse.Action):
    def __call__(self, *_: Any) -> None:
        os.environ[DEBUG] = "1"
