"""Snapshots of a training: whole or absent, the newest whole one can be resumed from."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from loku_exp.runtime import distributed
from loku_exp.runtime.cache import damage, seal, set_aside
from loku_exp.training.saved_state import DRAWS, OPTIMIZER

ONLY_TO_RESUME = (OPTIMIZER, DRAWS.format("*"))
LEAST_COST = 0.5  # seconds that a snapshot is taken to cost at least


class Snapshots(TrainerCallback):
    """Keeps a whole snapshot after given steps; the newest can be resumed from.

    The Trainer writes a checkpoint aside; the rename makes it a snapshot. So a kill at any moment
    leaves whole snapshots only. What only resuming needs is kept in the newest two, so that one of them
    may be damaged.

    Args:
        steps: when.
        folder: where.
        share: of the time that taking them may cost; steps that come sooner have none. None: any.
        only_newest: keep no other, where snapshots serve going on alone.
    """

    def __init__(
        self,
        steps: list[int],
        folder: Path,
        *,
        share: float | None = None,
        only_newest: bool = False,
    ):
        self.steps = set(steps)
        self.folder = folder
        self.share = share
        self.only_newest = only_newest
        self._cost = LEAST_COST
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask the Trainer for a checkpoint."""
        if state.global_step in self.steps:
            now = time.monotonic()
            if self.share is None or self._cost <= self.share * (now - self._last):
                control.should_save, self._last = True, now
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Turn the checkpoint into a snapshot and strip the one before."""
        with distributed.first_alone() as first:
            if first:
                self._keep(args, state)
        asked, self._last = self._last, time.monotonic()
        self._cost = max(LEAST_COST, self._last - asked)

    def _keep(self, args: Any, state: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for unused in ("training_args.bin", "README.md"):
            (checkpoint / unused).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        seal(checkpoint, {"step": state.global_step}, may_go=ONLY_TO_RESUME)
        older = []
        for snapshot in snapshots_in(self.folder):
            if step_of(snapshot) < state.global_step:
                older.append(snapshot)
            else:  # of an earlier training that could not be gone on with
                shutil.rmtree(snapshot)
        checkpoint.rename(self.folder / name_of(state.global_step))
        for snapshot in older[:-1]:
            if self.only_newest:
                shutil.rmtree(snapshot)
                continue
            for pattern in ONLY_TO_RESUME:
                for file in snapshot.glob(pattern):
                    file.unlink()


def snapshots_in(folder: Path) -> list[Path]:
    """Return the snapshots in a folder, oldest first."""
    return sorted(folder.glob("step-*"), key=lambda path: (step_of(path), path.name))


def newest_whole(folder: Path) -> Path | None:
    """Return the newest snapshot that can be resumed from, if there is one.

    All are looked at: one that is damaged is set aside, by a name that says so, and training goes on from
    the one before.
    """
    newest = None
    for snapshot in snapshots_in(folder):
        broken = damage(snapshot)
        if broken is not None:
            set_aside(snapshot, broken)
        elif (snapshot / ONLY_TO_RESUME[0]).is_file():
            newest = snapshot
    return newest


@contextmanager
def staging_in(folder: Path) -> Iterator[Path]:
    """Give the Trainer a folder to write in; what an interrupted run left there is dropped."""
    staging = folder / ".staging"
    _clear(staging)
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # the other processes may be gone: no waiting
        raise
    _clear(staging)


def _clear(staging: Path) -> None:
    with distributed.first_alone() as first:
        if first:
            shutil.rmtree(staging, ignore_errors=True)


def name_of(step: int) -> str:
    """Return the folder name of the snapshot after so many updates."""
    return f"step-{step:05d}"


def step_of(snapshot: Path) -> int:
    """Return after how many updates a snapshot was taken."""
    return int(snapshot.name.removeprefix("step-"))
