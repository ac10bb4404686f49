"""Event files of TensorBoard."""

from pathlib import Path
from typing import Any

from loku_exp.results import files as results
from loku_exp.results.schema import Record
from loku_exp.runtime.events import Begun
from loku_exp.tracking.tracker import Tracker, texts_shown


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
        for number, text in enumerate(texts_shown(folder, self.tracking.samples)):
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


def _preformatted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
