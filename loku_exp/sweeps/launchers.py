"""Where the runs of a sweep are worked on: in this process, in others, one a GPU, or on a cluster.

All but the first start the command a user would type for that run alone, so a run killed there is a
failed run and nothing more.
"""

import gc
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, HeldError, StorageError, UserError
from loku_exp.runtime.lifetime import PARENT
from loku_exp.sweeps.jobs import CONSOLE, SHOW_ERRORS, Ended, Ending, Job, Launcher, Work, ending_of
from loku_exp.sweeps.slurm import Cluster

log = logging.getLogger(__name__)
SECONDS_TO_END = 15


def launcher_of(config: Config, run: Callable[[Config], Path]) -> Launcher:
    """Return the launcher a configuration names.

    Args:
        config: of any run of the sweep.
        run: runs a configuration in this process.

    Raises:
        ConfigError: there is no GPU, or one that is named is not left to this process.
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
    left = _left_by_environment()
    if left is not None and not {str(device) for device in devices} <= set(left):
        raise ConfigError(
            f"launcher.devices=[{','.join(map(str, devices))}]: CUDA_VISIBLE_DEVICES leaves this process "
            f"{', '.join(left) or 'none'}; name some of these, or leave launcher.devices out"
        )
    return Processes([{"CUDA_VISIBLE_DEVICES": str(device)} for device in devices])


def visible_devices() -> list[str]:
    """Return the GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    left = _left_by_environment()
    return [str(index) for index in range(torch.cuda.device_count())] if left is None else left


def _left_by_environment() -> list[str] | None:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return None
    return [device.strip() for device in named.split(",") if device.strip()]


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
            return Ended(Ending(held=True))
        except BrokenPipeError:  # it has finished, and nobody reads its table
            return Ended(Ending())
        except Exception as error:
            shown = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            again = isinstance(error, StorageError)
            ended = Ended(Ending(error="; ".join(shown.splitlines()), again=again))
        else:
            return Ended(Ending())
        import torch

        gc.collect()  # what a traceback held: after a failure for lack of memory the next run needs it
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return ended

    def stop(self, works: Sequence[Work]) -> None:
        """Nothing goes on here."""


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

    def stop(self, works: Sequence[Any]) -> None:
        """Ask all of them to end; kill those that do not."""
        for work in works:
            work.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for work in works:
            try:
                work.process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(work.process.pid, signal.SIGKILL)
                work.process.wait()


@dataclass(frozen=True)
class _Process:
    process: subprocess.Popen[bytes]
    console: Path

    def poll(self) -> Ending | None:
        code = self.process.poll()
        return None if code is None else ending_of(code, self.console)
