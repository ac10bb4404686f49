"""Runs of Trackio: local files, shown by ``trackio show``."""

import contextlib
import io
import logging
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loku_exp.results.schema import Record
from loku_exp.results.table import header_and_rows
from loku_exp.runtime.events import Begun
from loku_exp.tracking.tracker import Tracker, final_values, group_of, texts_shown

log = logging.getLogger(__name__)
PLACE = "TRACKIO_DIR"  # read when trackio is imported; one for all runs, so that they are shown together


class Trackio(Tracker):
    """A run of Trackio, in a store beside the run folders; sent away only where its variables say so."""

    run: Any = None

    def open(self, begun: Begun) -> None:
        """Open a run of the folder's name, so that an interrupted one goes on in it."""
        os.environ.setdefault(PLACE, str(begun.folder.parent.absolute() / "trackio"))
        with _unheard():
            import trackio

            self.run = trackio.init(
                project=str(self.tracking.project),
                name=begun.folder.name,
                group=group_of(self.tracking),
                config=begun.config | {"toy": begun.toy},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        place, project = shlex.quote(str(trackio.TRACKIO_DIR)), shlex.quote(self.run.project)
        log.info("to look at it: %s=%s trackio show --project %s", PLACE, place, project)

    def scalars(self, values: dict[str, float], update: int, epoch: float | None = None) -> None:
        """Log values over updates; a snapshot's have their epoch beside them."""
        self.run.log(values | ({} if epoch is None else {"epoch": epoch}), step=update)

    def result(self, folder: Path, record: Record) -> None:
        """Log the final values, the table, texts before and after, and plots."""
        import trackio

        header, rows = header_and_rows(record)
        shown: dict[str, Any] = final_values(record)
        shown["table"] = trackio.Table(columns=["metric", *header[1:]], data=rows)
        texts = texts_shown(folder, self.tracking.samples)
        if texts:
            data = [list(text.values()) for text in texts]
            shown["samples"] = trackio.Table(columns=list(texts[0]), data=data)
        shown |= {f"plots/{file.stem}": trackio.Image(str(file)) for file in folder.glob("*.png")}
        self.run.log(shown, step=self.update)

    def close(self, failed: bool) -> None:
        """Wait until everything is written."""
        if self.run is None:
            return
        import trackio

        with _unheard():
            trackio.finish()  # a run's own leaves it to be finished again when the program ends


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep what trackio prints away from the lines of the run; what it warns of is a warning still."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
