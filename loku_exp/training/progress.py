"""The progress of a training: a bar and lines in the log, and events for who follows the run."""

from typing import Any

from transformers import TrainerCallback

from loku_exp.runtime.events import Updated, tell
from loku_exp.runtime.logs import Progress


class TrainingProgress(TrainerCallback):
    """Updates with the latest losses, on a bar and in the log.

    Args:
        description: what is done.
        position: line of the bar, where several processes draw one.
    """

    def __init__(self, description: str, position: int = 0):
        self.description = description
        self.position = position
        self.shown: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin, in one process of several."""
        if state.is_world_process_zero:
            self.shown = Progress(
                state.max_steps,
                self.description,
                "update",
                done=state.global_step,
                position=self.position,
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Move on by one update and show its loss, in its parts where it has two."""
        if self.shown is not None and logs and "loss" in logs:
            names = ["forget_loss", "retain_loss"] if "retain_loss" in logs else ["loss"]
            values = {
                n.removesuffix("_loss") if len(names) > 1 else n: f"{logs[n]:.3f}" for n in names
            }
            self.shown.update(1, **values)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self.shown is not None:
            self.shown.close()


class Told(TrainerCallback):
    """Tells who follows the run of every update: losses, gradient norm, learning rate."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Tell of an update."""
        if logs and "loss" in logs:
            tell(Updated(state.global_step, {k: v for k, v in logs.items() if k != "epoch"}))
