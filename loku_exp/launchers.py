"""Where the runs of a sweep are worked on: in this process, in others, one a GPU, or on a cluster.

All but the first start the command a user would type for that run alone, so a run killed there is a
failed run and nothing more.
"""

import gc
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from loku_exp.errors import ConfigError, HeldError, UserError
from loku_exp.lifetime import PARENT
from loku_exp.schema import Config

log = logging.getLogger(__name__)
CONSOLE = "console.log"  # what a run's process printed
OF_THE_SWEEP = re.compile(r"[+~]*(launcher|on_error|pairs)\b")
SECONDS_TO_END = 15
SHOW_ERRORS = {"HYDRA_FULL_ERROR": "1"}


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
    seconds: float = 0.0

    @property
    def command(self) -> list[str]:
        """The command of this run alone."""
        options = ["--config-dir", self.config_dir] if self.config_dir else []
        own = [text for text in self.overrides if not OF_THE_SWEEP.match(text)]
        return [sys.executable, "-m", "loku_exp", *options, *own, "launcher=in_process"]


@dataclass(frozen=True)
class Ending:
    """How a run ended; `held` where another process works on it, so that it did not begin."""

    error: str | None = None
    held: bool = False


class Work(Protocol):
    """A run that was started."""

    def poll(self) -> Ending | None:
        """Return how it ended; None while it goes on."""

    def stop(self) -> None:
        """End it; it can be gone on with later."""


class Launcher(Protocol):
    """Starts runs, as many at the same time as it has slots."""

    slots: list[Any]

    def start(self, job: Job, slot: Any) -> Work:
        """Start a run."""


def launcher_of(config: Config, run: Callable[[Config], Path]) -> Launcher:
    """Return the launcher a configuration names.

    Args:
        config: of any run of the sweep.
        run: runs a configuration in this process.

    Raises:
        ConfigError: there is no GPU.
    """
    chosen = config.launcher
    if chosen.kind == "in_process":
        return InProcess(run)
    if chosen.kind == "slurm":
        return Cluster(config)
    if chosen.kind == "processes":
        return Processes([{} for _ in range(chosen.jobs or 1)])
    devices = visible_devices() if chosen.devices is None else chosen.devices
    if not devices:
        raise ConfigError(
            "launcher=gpus: no GPU is visible here; use launcher=processes launcher.jobs=2, or name "
            "them: launcher.devices=[0,1]"
        )
    return Processes([{"CUDA_VISIBLE_DEVICES": str(device)} for device in devices])


def visible_devices() -> list[str]:
    """Return the GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


class InProcess:
    """Runs one after another in this process.

    Args:
        run: runs a configuration.
    """

    def __init__(self, run: Callable[[Config], Path]):
        self.run = run
        self.slots = [None]

    def start(self, job: Job, slot: Any) -> Work:
        """Run it to its end; its failure, whatever it is, is that of one run."""
        try:
            self.run(job.config)
        except HeldError:
            return _Ended(Ending(held=True))
        except Exception as error:
            shown = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            ended = _Ended(Ending(error="; ".join(shown.splitlines())))
        else:
            return _Ended(Ending())
        import torch

        gc.collect()  # what a traceback held: after a failure for lack of memory the next run needs it
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return ended


@dataclass(frozen=True)
class _Ended:
    ending: Ending

    def poll(self) -> Ending:
        return self.ending

    def stop(self) -> None:
        pass


class Processes:
    """Runs in processes of their own on this machine.

    Args:
        slots: environment variables of each place; there are as many runs at the same time.
    """

    def __init__(self, slots: list[dict[str, str]]):
        self.slots = slots

    def start(self, job: Job, slot: dict[str, str]) -> Work:
        """Start it in a session of its own, so that Ctrl-C reaches it through the sweep only."""
        job.folder.mkdir(parents=True, exist_ok=True)
        console = job.folder / CONSOLE
        with console.open("wb") as stream:
            process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | SHOW_ERRORS | {PARENT: str(os.getpid())} | slot,
                start_new_session=True,
            )
        return _Process(process, console)


@dataclass(frozen=True)
class _Process:
    process: subprocess.Popen[bytes]
    console: Path

    def poll(self) -> Ending | None:
        code = self.process.poll()
        return None if code is None else ending_of(code, self.console)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Cluster:
    """Runs as Slurm jobs.

    Args:
        config: of any run of the sweep; ``launcher.cluster=local`` is submitit's stand-in for a cluster.
    """

    def __init__(self, config: Config):
        import submitit

        chosen = config.launcher
        self.slots = list(range(chosen.jobs or 1))
        folder = Path(config.output_dir).expanduser() / ".slurm"
        self.executor = submitit.AutoExecutor(folder, cluster=chosen.cluster)
        given = {key: value for key, value in chosen.parameters.items() if value is not None}
        try:
            self.executor.update_parameters(name="loku_exp", **given)
        except (NameError, TypeError, ValueError) as error:
            raise ConfigError(f"launcher.parameters: {error}") from error

    def start(self, job: Job, slot: int) -> Work:
        """Submit it."""
        job.folder.mkdir(parents=True, exist_ok=True)
        console = job.folder / CONSOLE
        submitted = self.executor.submit(Command(job.command, str(console)))
        log.info("submitted %s as job %s", job.label, submitted.job_id)
        return _Submitted(submitted, console)


class Command:
    """What a cluster job calls: a run's command; asked to make room, it is put into the queue again.

    Args:
        command: of the run.
        console: file for what it prints.
    """

    def __init__(self, command: list[str], console: str):
        self.command, self.console = command, console

    def __call__(self) -> int:
        """Run it; return its exit code."""
        with open(self.console, "wb") as stream:
            return subprocess.run(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | SHOW_ERRORS,
            ).returncode

    def checkpoint(self) -> Any:
        """Return what submitit is to put into the queue; the run goes on from its newest snapshot."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class _Submitted:
    job: Any
    console: Path

    def poll(self) -> Ending | None:
        if not self.job.done():
            return None
        if self.job.exception() is not None:
            lines = str(self.job.exception()).strip().splitlines()
            return Ending(error=f"job {self.job.job_id}, {self.job.state}: {lines[-1]}")
        return ending_of(self.job.result(), self.console)

    def stop(self) -> None:
        self.job.cancel()


def ending_of(code: int, console: Path) -> Ending:
    """Return how a process ended, from its exit code and what it printed."""
    if code == 0:
        return Ending()
    if code == HeldError.exit_code:
        return Ending(held=True)
    if code < 0:
        name = signal.Signals(-code).name
        reason = "; most often memory ran out" if name == "SIGKILL" else ""
        return Ending(error=f"killed by {name}{reason}")
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
    return Ending(error="; ".join(said) or f"exit code {code}: {last.strip()}")
