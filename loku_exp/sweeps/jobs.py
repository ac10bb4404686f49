"""The runs of a sweep as jobs: what a launcher is given, and how one says that a job has ended."""

import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from loku_exp.config.schema import Config
from loku_exp.errors import HeldError, StorageError
from loku_exp.results.files import has_everything
from loku_exp.results.folder import HELD, PAGE
from loku_exp.runtime.programs import INTERRUPTED

CONSOLE = "console.log"  # what a run's process printed
OF_THE_SWEEP = re.compile(r"[+~]*(launcher|on_error|pairs)\b")
SKIPPED = "was finished"
SHOW_ERRORS = {"HYDRA_FULL_ERROR": "1", "PYTHONIOENCODING": "utf-8"}  # what it prints is read again
CANCELLED = "cancelled or interrupted; the same command goes on"


@dataclass
class Job:
    """One run of a sweep.

    Attributes:
        label: what distinguishes it from the others.
        overrides: its command line.
        config_dir: a folder of the user's own yaml.
        config: what they compose to.
        folder: of the run.
        needs: cache entries of its target and reference that were absent when last looked at.
        state: for people.
        error: one line, where it failed.
        again: whether it failed for what is not its settings' fault.
        seconds: of wall time in this sweep.
    """

    label: str
    overrides: list[str]
    config_dir: str | None
    config: Config
    folder: Path
    needs: set[Path] = field(default_factory=set)
    state: str = "not started"
    error: str | None = None
    again: bool = False
    seconds: float = 0.0

    def is_done(self) -> bool:
        """Return whether its run is finished, with all attacks and the page it asks for."""
        paged = not self.config.page or (self.folder / PAGE).is_dir()
        return paged and has_everything(self.folder, list(self.config.attacks))

    @property
    def command(self) -> list[str]:
        """The command of this run alone."""
        options = ["--config-dir", self.config_dir] if self.config_dir else []
        own = [text for text in self.overrides if not OF_THE_SWEEP.match(text)]
        alone = "launcher.kind=in_process"  # the key: a preset's own value of it beats the group
        return [sys.executable, "-m", "loku_exp", *options, *own, alone]


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        error: a line; None where it went well.
        held: whether another process works on it, so that it did not begin.
        folder: where its files are, if it says so: another machine may resolve ``auto`` otherwise, so that
            the run has another name there.
        again: whether it was ended from outside, or found no room, so that its settings are not at fault.
    """

    error: str | None = None
    held: bool = False
    folder: Path | None = None
    again: bool = False


class Work(Protocol):
    """A run that was started."""

    def poll(self) -> Ending | None:
        """Return how it ended; None while it goes on."""


@dataclass(frozen=True)
class Ended:
    """A run that ended as it was started."""

    ending: Ending

    def poll(self) -> Ending:
        """Return how."""
        return self.ending


class Launcher(Protocol):
    """Starts runs, as many at the same time as it has slots."""

    slots: list[Any]

    def start(self, job: Job, slot: Any) -> Work:
        """Start a run."""

    def stop(self, works: Sequence[Any]) -> None:
        """End runs that go on; they can be gone on with later. One that cannot be ended is said."""


def ending_of(code: int, console: Path) -> Ending:
    """Return how a process ended, from its exit code and what it printed."""
    try:
        text = console.read_text(encoding="utf-8", errors="replace")
    except OSError:  # another machine wrote it, and it is not seen here yet
        text = ""
    if code in (0, HeldError.exit_code):
        said = re.findall(f"^(?:files: |error: {HELD.format(folder='')})(.+)$", text, re.MULTILINE)
        return Ending(held=code != 0, folder=Path(said[-1]) if said else None)
    if code == INTERRUPTED:
        return Ending(error=CANCELLED, again=True)
    if code < 0:
        name = signal.Signals(-code).name
        reason = "; most often memory ran out" if name == "SIGKILL" else ""
        return Ending(error=f"killed by {name}{reason}")
    lines = text.splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
    error = "; ".join(said) or f"exit code {code}: {last.strip()}"
    return Ending(error=error, again=code == StorageError.exit_code)
