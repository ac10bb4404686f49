"""Event files of TensorBoard."""

from pathlib import Path
from typing import Any

from loku_exp.results import files as results
from loku_exp.results.schema import Record
from loku_exp.runtime.events import Begun
from loku_exp.tracking.tracker import Tracker, texts_shown


class TensorBoard(Tracker):
    """Event files in the run's folder; target and reference are runs beside it, drawn as level lines."""

    writer: Any = None
    place: Path

    def open(self, begun: Begun) -> None:
        """Open a new event file; TensorBoard shows those of one folder as one run."""
        from torch.utils.tensorboard import SummaryWriter

        self.place = begun.folder / "tensorboard"
        self.writer = SummaryWriter(str(self.place))
        text = (begun.folder / "config.yaml").read_text(encoding="utf-8")
        self.writer.add_text("config", _preformatted(text))

    def scalars(self, values: dict[str, float], update: int, epoch: float | None = None) -> None:
        """Write values over updates."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, update)
        self.writer.flush()  # by itself every two minutes, which a kill would lose

    def result(self, folder: Path, record: Record) -> None:
        """Write the table, choices beside final values, level lines, texts before and after, plots."""
        import numpy as np
        from PIL import Image

        self._levels(record)
        final = (
            {f"final/{name}": v for name, v in record.models["unlearned"].metrics.items()}
            if record.unlearned
            else {}
        )
        choices = {name: str(value) for name, value in record.run.choices.items()}
        self.writer.add_hparams(choices, final, run_name=".")
        self.writer.add_text("table", (folder / results.TABLE_FILE).read_text(encoding="utf-8"))
        for number, text in enumerate(texts_shown(folder, self.tracking.samples)):
            lines = "\n".join(f"{name}: {value}" for name, value in text.items())
            self.writer.add_text("samples", _preformatted(lines), number)
        for file in folder.glob("*.png"):
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            self.writer.add_image(f"plots/{file.stem}", pixels, dataformats="HWC")

    def _levels(self, record: Record) -> None:
        """Write what target and reference have, at the first and the last update of the curve."""
        from torch.utils.tensorboard import SummaryWriter

        if not record.curve:
            return
        for name in (name for name in record.models if name in ("target", "reference")):
            with SummaryWriter(str(self.place / name)) as writer:
                for metric in record.curve[0].metrics.keys() & record.models[name].metrics.keys():
                    value = record.models[name].metrics[metric]
                    for point in (record.curve[0], record.curve[-1]):
                        writer.add_scalar(f"snapshot/{metric}", value, point.step)

    def close(self, failed: bool) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()


def _preformatted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
