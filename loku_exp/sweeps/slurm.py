"""Runs as jobs of a Slurm cluster, by submitit (an extra)."""

import logging
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError
from loku_exp.sweeps.jobs import CONSOLE, SHOW_ERRORS, Ending, Job, Work, ending_of

log = logging.getLogger(__name__)


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
