"""Runs as jobs of a Slurm cluster, by submitit (an extra).

Slurm's own word is had from squeue: sacct, which submitit asks, says nothing where accounting is off.
"""

import logging
import math
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, UserError
from loku_exp.runtime.programs import INTERRUPTED
from loku_exp.sweeps.jobs import (
    CANCELLED,
    CONSOLE,
    SHOW_ERRORS,
    Ended,
    Ending,
    Job,
    Work,
    ending_of,
)

log = logging.getLogger(__name__)
SECONDS_BETWEEN_QUESTIONS = 15
SECONDS_TO_ANSWER = 60
SECONDS_TO_BE_TOLD = 5
GONE = "gone from the queue"
REASONS = {  # states in which a job stays, as squeue writes them, and what is said of them
    "CANCELLED": CANCELLED,
    "TIMEOUT": "it ran out of time; raise launcher.parameters.timeout_min",
    "DEADLINE": "it ran out of time; raise launcher.parameters.timeout_min",
    "OUT_OF_MEMORY": "memory ran out; raise launcher.parameters.mem_gb",
    "NODE_FAIL": "its node failed; the same command goes on",
    "BOOT_FAIL": "its node failed; the same command goes on",
    "PREEMPTED": "it was preempted and not queued again; the same command goes on",
    GONE: "cancelled, or its node failed; the same command goes on",
    "REVOKED": "",
    "COMPLETED": "",
    "FAILED": "",
}


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
        self.queue = _Queue(name)
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
            _answer(command)
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

        return submitit.helpers.DelayedSubmission(self)


@dataclass
class _Queue:
    """What Slurm says of the jobs of one name: one question for all of them, now and then.

    Attributes:
        name: of the jobs.
        states: by job.
        over: the look at which a job was first seen to have ended, by job.
    """

    name: str
    states: dict[str, str] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    asked: float = -math.inf
    answers: bool = True

    @property
    def chosen(self) -> list[str]:
        """Options by which Slurm's commands choose the jobs."""
        return [f"--name={self.name}", f"--user={os.getuid()}"]

    def ended(self, job: Any) -> str | None:
        """Return the state of a job that two looks found over, so that a result had time to arrive."""
        if time.monotonic() - self.asked >= SECONDS_BETWEEN_QUESTIONS:
            self._ask()
            self.asked = time.monotonic()
        state = self.states.get(job.job_id, GONE)
        if state not in REASONS:
            self.over.pop(job.job_id, None)
            return None
        return state if self.looks > self.over.setdefault(job.job_id, self.looks) else None

    def _ask(self) -> None:
        command = ["squeue", "--noheader", "--states=all", "--format=%i %T", *self.chosen]
        try:
            lines = _answer(command).splitlines()
        except UserError as error:
            if self.answers:
                log.warning("%s; the jobs are waited for", error)
            self.answers = False
            return
        self.answers = True
        self.looks += 1
        self.states = dict(line.split() for line in lines)


@dataclass(frozen=True)
class _Submitted:
    job: Any
    console: Path
    ended: Callable[[Any], str | None]
    max_timeouts: int

    def poll(self) -> Ending | None:
        state = self.ended(self.job)
        folder = self.job.paths.folder
        with suppress(OSError):  # makes a network file system look again
            folder.chmod(folder.stat().st_mode)
        if self.job.paths.result_pickle.exists():
            return self._result()
        if state is None:
            return None
        reason = REASONS.get(state) or _last_line(self.job.paths.stderr)
        return Ending(error=f"job {self.job.job_id}, {state}: {reason}")

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


def _answer(command: list[str]) -> str:
    """Return what a command of Slurm prints; the sweep's Ctrl-C does not reach it.

    Raises:
        UserError: it failed; in one line.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_ANSWER,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise UserError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout
