"""The progress of a training: a bar, and events for who follows the run."""

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from loku_exp.runtime.events import Updated, tell


class Progress(TrainerCallback):
    """A progress bar of updates with the latest losses.

    Args:
        description: what stands before the bar.
        position: line of the bar, where several processes draw one.
    """

    def __init__(self, description: str, position: int = 0):
        self.description = description
        self.position = position
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the bar, only on a terminal."""
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.description,
            unit="update",
            position=self.position,
            leave=self.position == 0,
            disable=None if state.is_world_process_zero else True,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on by one update."""
        if self.bar is not None:
            self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show the loss, in its parts where it has two."""
        if self.bar is not None and logs and "loss" in logs:
            names = ["forget_loss", "retain_loss"] if "retain_loss" in logs else ["loss"]
            self.bar.set_postfix({n.removesuffix("_loss"): f"{logs[n]:.3f}" for n in names})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class Told(TrainerCallback):
    """Tells who follows the run of every update: losses, gradient norm, learning rate."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Tell of an update."""
        if logs and "loss" in logs:
            tell(Updated(state.global_step, {k: v for k, v in logs.items() if k != "epoch"}))
