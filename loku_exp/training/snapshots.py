"""Snapshots of a training in a run's folder: whole or absent, the newest can be resumed from."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from loku_exp.runtime import distributed as parallel

ONLY_TO_RESUME = ("optimizer.pt", "scheduler.pt", "rng_state*.pth")


class Snapshots(TrainerCallback):
    """Keeps a whole snapshot after given steps; the newest can be resumed from.

    The Trainer writes a checkpoint aside; the rename makes it a snapshot. So a kill at any moment
    leaves whole snapshots only. What only resuming needs is kept in the newest.

    Args:
        steps: when.
        folder: where.
    """

    def __init__(self, steps: list[int], folder: Path):
        self.steps = set(steps)
        self.folder = folder

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask the Trainer for a checkpoint."""
        control.should_save = control.should_save or state.global_step in self.steps
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Turn the checkpoint into a snapshot and strip the one before."""
        with parallel.first_alone() as first:
            if first:
                self._keep(args, state)

    def _keep(self, args: Any, state: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for unused in ("training_args.bin", "README.md"):
            (checkpoint / unused).unlink(missing_ok=True)
        self.folder.mkdir(exist_ok=True)
        older = sorted(self.folder.glob("step-*"))
        checkpoint.rename(self.folder / name_of(state.global_step))
        for snapshot in older:
            for pattern in ONLY_TO_RESUME:
                for file in snapshot.glob(pattern):
                    file.unlink()


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
    with parallel.first_alone() as first:
        if first:
            shutil.rmtree(staging, ignore_errors=True)


def name_of(step: int) -> str:
    """Return the folder name of the snapshot after so many updates."""
    return f"step-{step:05d}"


def step_of(snapshot: Path) -> int:
    """Return after how many updates a snapshot was taken."""
    return int(snapshot.name.removeprefix("step-"))
