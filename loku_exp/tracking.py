"""Show a run on Weights & Biases or TensorBoard while it works; nothing else here knows either.

A tracker follows a run's events and reads what a finished run wrote. It is never the only copy of
anything, and whatever goes wrong with it costs one warning, never the run.
"""

import json
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loku_exp import results
from loku_exp.cache import digest
from loku_exp.events import Begun, Event, Finished, Measured, Updated, followed_by
from loku_exp.record import Record
from loku_exp.schema import Config, TrackingConfig
from loku_exp.table import header_and_rows

log = logging.getLogger(__name__)
SWEEP = "LOKU_SWEEP"  # names the sweep a job belongs to, in the environment of all its jobs
LONGEST = 128  # characters of a group or an artifact that wandb accepts
# Where wandb puts what is not the run itself; the home folder unless told otherwise.
PLACES = {"WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data", "WANDB_ARTIFACT_DIR": "artifacts"}
# No line of its own between those of the run, and no reports on its errors to its makers.
QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


@contextmanager
def tracked(tracking: TrackingConfig) -> Iterator[None]:
    """Track the run inside, if the configuration asks for it.

    A tracker opens when the run begins, so a finished run that is only shown opens none, and closes
    when it ends, however that is.
    """
    if tracking.name == "none":
        yield
        return
    tracker: Tracker = Wandb(tracking) if tracking.name == "wandb" else TensorBoard(tracking)
    failed = True
    try:
        with followed_by(tracker):
            yield
        failed = False
    finally:
        tracker.guarded(lambda: tracker.close(failed))


class Tracker(ABC):
    """What every tracker does with the events of a run.

    Args:
        tracking: its section of the configuration.
    """

    def __init__(self, tracking: TrackingConfig):
        self.tracking = tracking
        self.works = True

    def __call__(self, event: Event) -> None:
        """Take an event; after a failure none is taken any more."""
        if self.works:
            self.guarded(lambda: self._take(event))

    def guarded(self, call: Any) -> None:
        """Call, and turn a failure into one warning: tracking must not cost a run."""
        try:
            call()
        except Exception as error:
            self.works = False
            log.warning(
                "tracking=%s stopped (%s: %s); the run goes on, its folder has everything",
                self.tracking.name,
                type(error).__name__,
                _line(error),
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


class Wandb(Tracker):
    """A run of Weights & Biases, offline where the server cannot be reached or knows no key."""

    run: Any = None
    environment: dict[str, str | None]

    def open(self, begun: Begun) -> None:
        """Open a run whose id is the run folder's, so that an interrupted one goes on in it."""
        places = {name: str(begun.folder / "wandb" / sub) for name, sub in PLACES.items()}
        ours = {name: value for name, value in (places | QUIET).items() if name not in os.environ}
        self.environment = dict.fromkeys(ours)
        os.environ.update(ours)
        (begun.folder / "wandb").mkdir(exist_ok=True)

        config = begun.config
        content = config.model_dump(mode="json", by_alias=True, exclude={"tracking"})
        self.run = self._init(
            {
                "project": self.tracking.project,
                "entity": self.tracking.entity,
                "group": _group(self.tracking),
                "id": run_id(begun.folder),
                "name": begun.folder.name,
                "dir": os.environ.get("WANDB_DIR", str(begun.folder)),
                "config": {"method": method_of(config)} | content,
                "tags": ["toy"] if config.dataset.toy or config.model.kind == "toy" else None,
                "allow_val_change": True,  # a job that goes on may name other places
            }
        )
        self.run.define_metric("update", hidden=True)
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("unlearning/*", step_metric="update")
        self.run.define_metric("snapshot/*", step_metric="epoch")

    def _init(self, arguments: dict[str, Any]) -> Any:
        """Open online if that works within seconds, else offline with one line of warning."""
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",  # the run has a log of its own
            disable_git=True,  # would send a patch of uncommitted work
            disable_job_creation=True,
            init_timeout=float(self.tracking.init_timeout or 0),
            finish_timeout=float(self.tracking.finish_timeout or 0),
        )
        arguments["settings"] = settings
        offline = "offline" in (self.tracking.mode, os.environ.get("WANDB_MODE"))
        if not offline:
            try:
                if wandb.login(prompt=False, verify=False):
                    return wandb.init(mode="online", resume="allow", **arguments)
                reason = "there is no key; wandb login, or WANDB_API_KEY"
            except wandb.Error as error:
                reason = _line(error)
            wandb.teardown()
            log.warning("wandb is offline (%s); send the run later with wandb sync", reason)
        return wandb.init(mode="offline", **arguments)

    def scalars(self, values: dict[str, float], update: int, epoch: float | None = None) -> None:
        """Log values over updates, those of a snapshot over epochs."""
        place = {"update": update} | ({} if epoch is None else {"epoch": epoch})
        self.run.log(values | place)

    def result(self, folder: Path, record: Record) -> None:
        """Log the final metrics as summary, and tables and plots."""
        import wandb

        header, rows = header_and_rows(record)
        columns: list[str | int] = ["metric", *header[1:]]
        shown: dict[str, Any] = {"table": wandb.Table(columns=columns, data=rows)}
        texts = samples(folder, self.tracking.samples)
        if texts:
            data = [list(text.values()) for text in texts]
            shown["samples"] = wandb.Table(columns=list(texts[0]), data=data)
        shown |= {f"plots/{file.stem}": wandb.Image(str(file)) for file in folder.glob("*.png")}
        self.run.log(shown)
        self.run.summary.update(summary(record))
        shipped = next((p for p in (folder / "adapter", folder / "model") if p.is_dir()), None)
        if self.tracking.artifact and shipped:
            artifact = wandb.Artifact(f"{shipped.name}-{folder.name}"[:LONGEST], type=shipped.name)
            artifact.add_dir(str(shipped))
            self.run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        """Finish the run, so that the next job of a sweep gets one of its own."""
        if self.run is None and not hasattr(self, "environment"):
            return
        import wandb

        try:
            if self.run is not None:
                self.run.finish(exit_code=int(failed))
            wandb.teardown(exit_code=int(failed))
        finally:
            for name in self.environment:
                os.environ.pop(name, None)


class TensorBoard(Tracker):
    """Event files in the run's folder."""

    writer: Any = None

    def open(self, begun: Begun) -> None:
        """Open a new event file; TensorBoard shows those of one folder as one run."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(begun.folder / "tensorboard"))
        text = (begun.folder / "config.yaml").read_text(encoding="utf-8")
        self.writer.add_text("config", _preformatted(text))

    def scalars(self, values: dict[str, float], update: int, epoch: float | None = None) -> None:
        """Write values over updates."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, update)

    def result(self, folder: Path, record: Record) -> None:
        """Write the table, texts before and after, plots."""
        import numpy as np
        from PIL import Image

        self.writer.add_text("table", (folder / results.TABLE_FILE).read_text(encoding="utf-8"))
        for number, text in enumerate(samples(folder, self.tracking.samples)):
            lines = "\n".join(f"{name}: {value}" for name, value in text.items())
            self.writer.add_text("samples", _preformatted(lines), number)
        for file in folder.glob("*.png"):
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            self.writer.add_image(f"plots/{file.stem}", pixels, dataformats="HWC")

    def close(self, failed: bool) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()


def run_id(folder: Path) -> str:
    """Return the id a run folder's name ends with: its hash, with ``-r2`` where it was run again.

    Raises:
        ValueError: the name has none.
    """
    found = re.search(r"[0-9a-f]{12}(-r\d+)?$", folder.name)
    if found is None:
        raise ValueError(f"{folder.name} does not end with the hash of a run")
    return found.group()


def method_of(config: Config) -> str:
    """Return loss and init, which plots over many runs are coloured by."""
    if not config.unlearn:
        return "none"
    return f"{config.loss.name} {config.init.name if config.init else 'all weights'}"


def summary(record: Record) -> dict[str, Any]:
    """Return the final values of a run, by role and metric, with its verdict and cost."""
    values: dict[str, Any] = {
        f"{role}/{name}": value
        for role, model in record.models.items()
        for name, value in model.metrics.items()
    }
    values["verdict"] = record.verdict
    values |= {f"seconds/{name}": value for name, value in record.cost["seconds"].items()}
    values |= {f"flops/{name}": value for name, value in record.cost.get("flops", {}).items()}
    values |= {
        name: record.training[name]
        for name in ("epochs", "epochs_to_forget")
        if record.training.get(name) is not None
    }
    if "success" in record.training:
        values["success"] = int(record.training["success"])  # a mean over runs is the success rate
    return values


def samples(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the first texts of the forget set: what target and unlearned model make of them."""
    by_row: dict[Any, dict[str, dict[str, Any]]] = {}
    lines = (folder / results.EXAMPLES_FILE).read_text(encoding="utf-8").splitlines()
    for line in lines:
        row = json.loads(line)
        if row["set"] == "forget" and "generation" in row:
            by_row.setdefault(row["row"], {})[row["model"]] = row
    texts = []
    for number, of_model in by_row.items():
        if "target" in of_model and "unlearned" in of_model:
            before, after = of_model["target"], of_model["unlearned"]
            given = ("group", "question", "prompt", "reference")
            texts.append(
                {"row": number}
                | {name: before[name] for name in given if name in before}
                | {"before": before["generation"], "after": after["generation"]}
            )
    return texts[:count]


def _group(tracking: TrackingConfig) -> str | None:
    """Return the group of a run: as configured, else the command line of its sweep."""
    group = tracking.group or os.environ.get("WANDB_RUN_GROUP") or os.environ.get(SWEEP)
    if group and len(group) > LONGEST:
        return f"{group[: LONGEST - 9]} {digest(group, 8)}"
    return group


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _preformatted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
