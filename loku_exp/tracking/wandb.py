"""Runs of Weights & Biases."""

import logging
import os
import re
import shlex
from pathlib import Path
from typing import Any

from loku_exp.results.schema import Record
from loku_exp.results.table import header_and_rows
from loku_exp.runtime.events import Begun
from loku_exp.tracking.tracker import (
    LONGEST,
    Tracker,
    final_values,
    group_of,
    one_line,
    texts_shown,
)

log = logging.getLogger(__name__)
# Where wandb puts what is not the run itself; the home folder unless told otherwise.
PLACES = {"WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data", "WANDB_ARTIFACT_DIR": "artifacts"}
# No line of its own between those of the run, and no reports on its errors to its makers.
QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


class Wandb(Tracker):
    """A run of Weights & Biases, offline where the server cannot be reached or knows no key."""

    run: Any = None
    beside: bool = False
    environment: dict[str, str | None]

    def open(self, begun: Begun) -> None:
        """Open a run whose id is the run folder's, so that an interrupted one goes on in it."""
        places = {name: str(begun.folder / "wandb" / sub) for name, sub in PLACES.items()}
        ours = {name: value for name, value in (places | QUIET).items() if name not in os.environ}
        self.environment = dict.fromkeys(ours)
        os.environ.update(ours)
        (begun.folder / "wandb").mkdir(exist_ok=True)

        import wandb

        asked = wandb.setup().settings.mode  # by its variables and files
        if asked == "disabled":
            log.info("wandb is disabled (WANDB_MODE, or its settings); the run is not tracked")
            self.works = False
            return
        self.beside = wandb.run is not None  # a notebook's own, which goes on
        self.run = self._init(
            {asked, self.tracking.mode},
            {
                "reinit": "create_new" if self.beside else None,
                "project": self.tracking.project,
                "entity": self.tracking.entity,
                "group": group_of(self.tracking, "WANDB_RUN_GROUP"),
                "id": id_of(begun.folder),
                "name": begun.folder.name,
                "dir": os.environ.get("WANDB_DIR", str(begun.folder)),
                "config": begun.config,
                "tags": ["toy"] if begun.toy else None,
                "allow_val_change": True,  # a job that goes on may name other places
            },
        )
        self.run.define_metric("update", hidden=True)
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("unlearning/*", step_metric="update")
        self.run.define_metric("snapshot/*", step_metric="epoch")

    def _init(self, modes: set[str | None], arguments: dict[str, Any]) -> Any:
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
        reason = "as asked"
        if not modes & {"offline", "dryrun"}:
            try:
                if wandb.login(prompt=False, verify=False):
                    return wandb.init(mode="online", resume="allow", **arguments)
                reason = "there is no key; wandb login, or WANDB_API_KEY"
            except wandb.Error as error:
                reason = one_line(error)
            if not self.beside:
                wandb.teardown()
        run = wandb.init(mode="offline", **arguments)
        place = shlex.quote(str(Path(run.dir).parent))
        level = logging.INFO if reason == "as asked" else logging.WARNING
        log.log(level, "wandb is offline (%s); send the run later: wandb sync %s", reason, place)
        return run

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
        texts = texts_shown(folder, self.tracking.samples)
        if texts:
            data = [list(text.values()) for text in texts]
            shown["samples"] = wandb.Table(columns=list(texts[0]), data=data)
        shown |= {f"plots/{file.stem}": wandb.Image(str(file)) for file in folder.glob("*.png")}
        self.run.log(shown)
        self.run.summary.update(final_values(record))
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
            if not self.beside:
                wandb.teardown(exit_code=int(failed))
        finally:
            for name in self.environment:
                os.environ.pop(name, None)


def id_of(folder: Path) -> str:
    """Return the id a run folder's name ends with: its hash, with ``-r2`` where it was run again.

    Raises:
        ValueError: the name has none.
    """
    found = re.search(r"[0-9a-f]{12}(-r\d+)?$", folder.name)
    if found is None:
        raise ValueError(f"{folder.name} does not end with the hash of a run")
    return found.group()
