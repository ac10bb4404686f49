"""Runs as jobs of a Slurm cluster, by submitit (an extra)."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, UserError
from loku_exp.runtime.programs import INTERRUPTED
from loku_exp.sweeps.jobs import (
    CONSOLE,
    SHOW_ERRORS,
    Ended,
    Ending,
    Job,
    Work,
    ending_of,
)
from loku_exp.sweeps.queue import FROM_OUTSIDE, REASONS, Queue, answer_of

log = logging.getLogger(__name__)
SECONDS_TO_BE_TOLD = 5


class Cluster:
    """Runs as Slurm jobs.

    Args:
        config: of any run of the sweep; ``launcher.cluster=local`` is submitit's stand-in for a cluster.

    Raises:
        ConfigError: there is no Slurm, or submitit does not know a parameter.
    """

    def __init__(self, config: Config):
        import submitit

        chosen = config.launcher
        self.is_local = chosen.cluster == "local"
        if not self.is_local and not (shutil.which("sbatch") and shutil.which("srun")):
            raise ConfigError(
                "launcher=slurm: there is no sbatch here; start it where Slurm is, or try it with "
                "launcher.cluster=local, or use launcher=processes"
            )
        self.slots = list(range(chosen.jobs or 1))
        self.max_timeouts = chosen.max_timeouts
        self.parameters = {k: value for k, value in chosen.parameters.items() if value is not None}
        given = dict(self.parameters)
        # a name of its own, so that one question and one cancel reach this sweep's jobs and no others
        name = f"{given.pop('slurm_job_name', 'loku_exp')}-{uuid.uuid4().hex[:8]}"
        self.queue = Queue(name)
        folder = Path(config.output_dir).expanduser() / ".slurm"
        limits = {f"{chosen.cluster}_max_num_timeout": chosen.max_timeouts}
        self.executor = submitit.AutoExecutor(folder, cluster=chosen.cluster, **limits)
        try:
            self.executor.update_parameters(name=name, **given)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise ConfigError(f"launcher.parameters: {str(error).splitlines()[0]}") from error

    def start(self, job: Job, slot: int) -> Work:
        """Submit it; that Slurm refuses it is the failure of this job."""
        console = job.folder / CONSOLE
        try:
            submitted = self.executor.submit(Command(job.command, str(console)))
        except RuntimeError as error:
            said = " ".join(str(error).replace("sbatch: error: ", "").split())
            given = ", ".join(f"{key}={value}" for key, value in self.parameters.items())
            return Ended(
                Ending(error=f"sbatch refused it: {said}; change launcher.parameters ({given})")
            )
        log.info("submitted %s as job %s", job.label, submitted.job_id)
        self.queue.states[submitted.job_id] = "PENDING"  # until it is asked
        ended = _ended_here if self.is_local else self.queue.ended
        return _Submitted(submitted, console, ended, self.max_timeouts)

    def stop(self, works: Sequence[Any]) -> None:
        """Cancel all jobs of the sweep, also one whose submission was interrupted."""
        if self.is_local:
            for work in works:
                work.job.cancel()
            return
        command = ["scancel", *self.queue.chosen]
        try:
            answer_of(command)
        except UserError as error:
            log.error(
                "error: jobs not cancelled: %s; once Slurm answers: %s", error, " ".join(command)
            )


class Command:
    """What a cluster job calls: a run's command; asked to make room, it is put into the queue again.

    Args:
        command: of the run.
        console: file for what it prints.
    """

    def __init__(self, command: list[str], console: str):
        self.command, self.console = command, console

    def __call__(self) -> int:
        """Run it; return its exit code, or exit where it was ended from outside."""
        Path(self.console).parent.mkdir(parents=True, exist_ok=True)
        with open(self.console, "wb") as stream:
            code = subprocess.run(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | SHOW_ERRORS,
            ).returncode
        if code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGUSR2):
            # Slurm signals all processes of a job: submitit's own handler may be about to queue it again
            time.sleep(SECONDS_TO_BE_TOLD)
            sys.exit(INTERRUPTED)  # no result: only Slurm knows whether it was cancelled or goes on
        return code

    def checkpoint(self) -> Any:
        """Return what submitit is to put into the queue; the run goes on from its newest snapshot."""
        import submitit

        # a job queued again is ended by Slurm with all it runs: `scontrol requeue` itself, too
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class _Submitted:
    job: Any
    console: Path
    ended: Callable[[Any], str | None]
    max_timeouts: int

    def poll(self) -> Ending | None:
        """Return how it ended; None while it waits or goes on."""
        state = self.ended(self.job)
        folder = self.job.paths.folder
        with suppress(OSError):  # makes a network file system look again
            folder.chmod(folder.stat().st_mode)
        if self.job.paths.result_pickle.exists():
            return self._result()
        if state is None:
            return None
        reason = REASONS.get(state) or _last_line(self.job.paths.stderr)
        error = f"job {self.job.job_id}, {state}: {reason}"
        return Ending(error=error, again=state in FROM_OUTSIDE)

    def _result(self) -> Ending:
        failure = self.job.exception()
        if failure is None:
            return ending_of(self.job.result(), self.console)
        if "timed-out too many times" in str(failure):
            error = (
                f"ran out of time {self.max_timeouts + 1} times; the same command goes on, or raise "
                "launcher.parameters.timeout_min or launcher.max_timeouts"
            )
        else:
            lines = str(failure).strip().splitlines()
            error = next((one for one in reversed(lines) if re.match(r"[\w.]+: ", one)), lines[-1])
        return Ending(error=f"job {self.job.job_id}: {error}")


def _ended_here(job: Any) -> str | None:
    return job.state if job.done() else None


def _last_line(file: Path) -> str:
    with suppress(OSError):
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no result")
    return "no result"
