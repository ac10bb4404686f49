"""What every tracker does with the events of a run, and what it shows of a finished one."""

import json
import logging
import os
import time
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
from loku_exp.runtime.whole_files import write_text

log = logging.getLogger(__name__)
SWEEP = "LOKU_SWEEP"  # names the sweep a job belongs to, in the environment of all its jobs
TOLD_FILE = (
    "tracked.json"  # in the run's folder: by tracker and value, the last update it has shown
)
SECONDS_TO_ARRIVE = (
    5.0  # by then a tracker has written what it was given, even if the run is killed
)
LONGEST = 128  # characters of a group or an artifact that wandb accepts


class Tracker(ABC):
    """What every tracker does with the events of a run.

    Args:
        tracking: its section of the configuration.
    """

    _file: Path

    def __init__(self, tracking: Tracking):
        self.tracking = tracking
        self.works = True
        self.update = 0  # that the run has come to
        self._told: dict[str, dict[str, int]] = {}
        self._under_way: list[tuple[float, dict[str, int]]] = []

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
                self._file = event.folder / TOLD_FILE
                self._told = _read_told(self._file)
                self.open(event)
            case Updated():
                scalars = {f"unlearning/{name}": value for name, value in event.values.items()}
                self._show(scalars, event.update)
            case Measured():
                scalars = {f"snapshot/{name}": value for name, value in event.metrics.items()}
                self._show(scalars, event.update, event.epoch)
            case Finished():
                self.result(event.folder, results.read(event.folder))

    def _show(self, values: dict[str, float], update: int, epoch: float | None = None) -> None:
        """Show what is new: an attempt that was ended may have come further than its snapshot."""
        told = self._told.setdefault(self.tracking.name, {})
        new = {name: value for name, value in values.items() if told.get(name, -1) < update}
        self.update = update
        if new:
            self.scalars(new, update=update, epoch=epoch)
            now = time.monotonic()
            self._under_way.append((now, dict.fromkeys(new, update)))
            if now - self._under_way[0][0] >= 2 * SECONDS_TO_ARRIVE:  # not at every update
                self._note(SECONDS_TO_ARRIVE)

    def _note(self, seconds: float) -> None:
        """Note what was shown so long ago; what is lost by a kill must not count as shown."""
        due = [told for at, told in self._under_way if time.monotonic() - at >= seconds]
        if due:
            del self._under_way[: len(due)]
            for told in due:
                self._told[self.tracking.name] |= told
            write_text(self._file, json.dumps(self._told) + "\n")

    def end(self, failed: bool) -> None:
        """Close it; then all that was shown has arrived."""
        self.close(failed)
        self._note(0)

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


def _read_told(file: Path) -> dict[str, dict[str, int]]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {tracker: dict(updates) for tracker, updates in told.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # none yet; at worst something is shown twice


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
