"""What every tracker does with the events of a run, and what it shows of a finished one."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loku_exp.results import files as results
from loku_exp.results.examples import read_examples, shown_texts
from loku_exp.results.schema import Record
from loku_exp.runtime.cache import digest
from loku_exp.runtime.events import Begun, Event, Finished, Measured, Updated
from loku_exp.runtime.settings import Tracking

log = logging.getLogger(__name__)
SWEEP = "LOKU_SWEEP"  # names the sweep a job belongs to, in the environment of all its jobs
LONGEST = 128  # characters of a group or an artifact that wandb accepts


class Tracker(ABC):
    """What every tracker does with the events of a run.

    Args:
        tracking: its section of the configuration.
    """

    def __init__(self, tracking: Tracking):
        self.tracking = tracking
        self.works = True

    def __call__(self, event: Event) -> None:
        """Take an event; after a failure none is taken any more."""
        if self.works:
            self.guarded(lambda: self._take(event))

    def guarded(self, call: Callable[[], None]) -> None:
        """Call, and turn a failure into one warning: tracking must not cost a run."""
        try:
            call()
        except Exception as error:
            self.works = False
            log.warning(
                "tracking=%s stopped (%s: %s); the run goes on, its folder has everything",
                self.tracking.name,
                type(error).__name__,
                one_line(error),
            )

    def _take(self, event: Event) -> None:
        match event:
            case Begun():
                self.open(event)
            case Updated():
                scalars = {f"unlearning/{name}": value for name, value in event.values.items()}
                self.scalars(scalars, update=event.update)
            case Measured():
                scalars = {f"snapshot/{name}": value for name, value in event.metrics.items()}
                self.scalars(scalars, update=event.update, epoch=event.epoch)
            case Finished():
                self.result(event.folder, results.read(event.folder))

    @abstractmethod
    def open(self, begun: Begun) -> None:
        """Open what the run is shown in."""

    @abstractmethod
    def scalars(self, values: dict[str, float], update: int, epoch: float | None = None) -> None:
        """Show values after an update; with `epoch` they are a snapshot's."""

    @abstractmethod
    def result(self, folder: Path, record: Record) -> None:
        """Show the final table, texts before and after, plots."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Close it, if it was opened."""


def texts_shown(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the first texts of the forget set: what target and unlearned model make of them."""
    return [
        {"row": text.row, "group": text.group, "prompt": text.asked, "text": text.truth}
        | {"before": text.said["target"], "after": text.said["unlearned"]}
        for text in shown_texts(read_examples(folder), count=count)
    ]


def final_values(record: Record) -> dict[str, Any]:
    """Return the final values of a run, by model and metric, with its judgement and cost."""
    values: dict[str, Any] = {
        f"{model}/{name}": value
        for model, part in record.models.items()
        for name, value in part.metrics.items()
    }
    for kind in ("seconds", "flops"):
        values |= {f"{kind}/{name}": value for name, value in record.cost.get(kind, {}).items()}
    for name in ("epochs", "epochs_to_forget"):
        if record.training.get(name) is not None:
            values[name] = record.training[name]
    if record.judgement is not None:
        values["verdict"] = record.judgement.sentence
        values["collapsed"] = int(record.judgement.collapsed)
        if record.judgement.success is not None:
            values["success"] = int(record.judgement.success)  # its mean over runs is the rate
    return values


def group_of(tracking: Tracking, variable: str = "") -> str | None:
    """Return the group of a run: as configured, else as a variable says, else its sweep's command line."""
    group = tracking.group or os.environ.get(variable) or os.environ.get(SWEEP)
    if group and len(group) > LONGEST:
        return f"{group[: LONGEST - 9]} {digest(group, 8)}"
    return group


def one_line(error: Exception) -> str:
    """Return an error's text in one line."""
    return " ".join(str(error).split())[:200]
