"""A sweep: all its runs checked, then worked on, finished ones skipped; one table at the end.

A run is known by its folder, so the same command goes on wherever the last one ended, and two sweeps may
work on the same folders: each run is done once, by whoever claims it first.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.results.folder import is_held
from loku_exp.runtime.cache import is_whole
from loku_exp.runtime.logs import duration
from loku_exp.sweeps.jobs import SKIPPED, Ending, Job, Launcher, Work
from loku_exp.sweeps.launchers import launcher_of
from loku_exp.sweeps.plan import plan_jobs
from loku_exp.sweeps.table import show_sweep

log = logging.getLogger(__name__)
FINISHED, ELSEWHERE = "finished", "finished elsewhere"
SECONDS_BETWEEN_LOOKS = 0.2
Run = Callable[[Config], Path]


def sweep(
    jobs: list[list[str]], configs: list[Config], config_dir: str | None, run: Run
) -> list[Job]:
    """Work on all runs of a sweep and show them in one table.

    Args:
        jobs: overrides of each run.
        configs: what they compose to.
        config_dir: a folder of the user's own yaml.
        run: runs a configuration in this process.

    Returns:
        The runs, each with its state; an interrupt is raised again after the table.

    Raises:
        UserError: with every problem of every run; nothing has been started then.
    """
    planned = plan_jobs(jobs, configs, config_dir)
    launcher = launcher_of(configs[0], run)
    todo = [job for job in planned if job.state != SKIPPED]
    runs = "1 run" if len(planned) == 1 else f"{len(planned)} runs"
    log.info("%s, %d finished before", runs, len(planned) - len(todo))
    work = work_on(todo, launcher)
    try:
        for job in _reported(work, todo, len(launcher.slots)):
            if job.error and job.config.on_error == "stop":
                log.error("on_error=stop: the sweep ends here; the same command goes on")
                break
    finally:
        work.close()  # ends what still runs
        show_sweep(planned)
    return planned


def work_on(jobs: list[Job], launcher: Launcher) -> Generator[Job, None, None]:
    """Start runs as slots get free; yield each when it has ended, with its state.

    Of runs that lack the same target or reference one goes first and makes it. A run that another
    process works on comes last: when that process has ended, finished or not.
    """
    waiting, free = list(jobs), list(launcher.slots)
    running: list[tuple[Job, Any, Work, float]] = []
    told = False
    try:
        while waiting or running:
            for job in [job for job in waiting if free]:
                if not free:
                    break
                if job.is_done():
                    waiting.remove(job)
                    yield _ended(job, ELSEWHERE)
                elif _can_start(job, [other for other, *_ in running]):
                    waiting.remove(job)
                    slot = free.pop(0)
                    job.state = "interrupted"  # until it has ended
                    log.info("starting %s", job.label)
                    began = time.perf_counter()
                    running.append((job, slot, launcher.start(job, slot), began))
            for entry in list(running):
                job, slot, work, began = entry
                ending = work.poll()
                if ending is None:
                    continue
                running.remove(entry)
                free.append(slot)
                job.folder = ending.folder or job.folder
                if ending.held:
                    job.state = "not started"
                    waiting.append(job)
                    continue
                if ending.error is None:
                    _note_made(job, waiting)
                job.seconds = time.perf_counter() - began
                yield _judged(job, ending)
            if waiting and not running and not told:
                told = _tell_of_held(waiting)
            if running or waiting:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except BaseException:
        launcher.stop([work for _, _, work, _ in running])
        raise


def _can_start(job: Job, running: list[Job]) -> bool:
    job.needs = {entry for entry in job.needs if not is_whole(entry)}
    made_by_others = set().union(*(other.needs for other in running))
    return not job.needs & made_by_others and not is_held(job.folder)


def _note_made(job: Job, waiting: list[Job]) -> None:
    """Note that what a run needed is there, perhaps by another name: see `Ending.folder`."""
    for other in waiting:
        other.needs -= job.needs


def _judged(job: Job, ending: Ending) -> Job:
    error, job.again = ending.error, ending.again
    if error is None and not job.is_done():
        error = "ended without a result and without an error"
    return _ended(job, "failed" if error else FINISHED, error)


def _ended(job: Job, state: str, error: str | None = None) -> Job:
    job.state, job.error = state, error
    return job


def _tell_of_held(waiting: list[Job]) -> bool:
    held = [job for job in waiting if is_held(job.folder)]
    for job in held:
        job.state = "held elsewhere"
    if held:
        runs = "1 run" if len(held) == 1 else f"{len(held)} runs"
        log.info("waiting for %s that other processes work on", runs)
    return bool(held)


def _reported(work: Iterator[Job], todo: list[Job], num_slots: int) -> Iterator[Job]:
    """Pass runs on as they end, and say how far the sweep is and when it may end."""
    seconds = []
    for count, job in enumerate(work, 1):
        text = f"[{count}/{len(todo)}] {job.state}: {job.label}"
        if job.seconds:
            seconds.append(job.seconds)
            text += f" ({duration(job.seconds)})"
        if seconds and count < len(todo):
            left = fmean(seconds) * (len(todo) - count) / min(num_slots, len(todo) - count)
            end = datetime.now() + timedelta(seconds=left)
            text += f"; about {duration(left)} left, until {end:%H:%M}"
        log.info("%s", text)
        if job.error:
            log.error("error: %s: %s", job.label, job.error)
        yield job
