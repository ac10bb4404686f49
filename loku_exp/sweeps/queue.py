"""What Slurm says of a sweep's jobs: one question for all of them, now and then.

Its own word is had from squeue: sacct, which submitit asks, says nothing where accounting is off.
"""

import logging
import math
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from loku_exp.errors import UserError
from loku_exp.sweeps.jobs import CANCELLED

log = logging.getLogger(__name__)
SECONDS_BETWEEN_QUESTIONS = 15
SECONDS_TO_ANSWER = 60
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
FROM_OUTSIDE = {"CANCELLED", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED", GONE}


@dataclass
class Queue:
    """The jobs of one name, as Slurm sees them.

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
            lines = answer_of(command).splitlines()
        except UserError as error:
            if self.answers:
                log.warning("%s; the jobs are waited for", error)
            self.answers = False
            return
        self.answers = True
        self.looks += 1
        self.states = dict(line.split() for line in lines)


def answer_of(command: list[str]) -> str:
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
