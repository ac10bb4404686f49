"""Time and memory over each size, both axes logarithmic, each line with its exponent at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot, ticker
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

LOOKS: dict[str, dict[str, Any]] = {
    "step": {"color": "#0072B2", "marker": "o"},
    "fisher, hooks": {"color": "#D55E00", "marker": "s"},
    "fisher, sweep": {"color": "#009E73", "marker": "^"},
    "low-rank step": {"color": "#CC79A7", "marker": "D"},
}
LINE_HEIGHT = 10  # points


def plot(found: list[dict[str, Any]], varied: Mapping[str, tuple[int, ...]], file: Path) -> None:
    """Draw what was measured.

    Args:
        found: the rows of ``growth.json``.
        varied: sizes by name.
        file: where to.
    """
    figure, axes = pyplot.subplots(2, len(varied), figsize=(2.6 * len(varied), 6), sharex="col")
    for column, (name, sizes) in enumerate(varied.items()):
        for line, (key, scale) in enumerate((("seconds", 1e3), ("bytes", 2**-20))):
            axis = axes[line, column]
            for row in (row for row in found if row["against"] == name):
                values = [scale * p[key] for p in row["points"]]
                axis.loglog(sizes, values, label=row["what"], **LOOKS[row["what"]])
            axis.xaxis.set_major_locator(ticker.FixedLocator(sizes))
            axis.xaxis.set_minor_locator(ticker.NullLocator())
            axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
            axis.yaxis.set_minor_formatter(ticker.NullFormatter())
            axis.set_xticks(sizes, [_short(size) for size in sizes])
            axis.margins(x=0.3, y=0.12)
        axes[1, column].set_xlabel(name)
    axes[0, 0].set_ylabel("processor time, ms")
    axes[1, 0].set_ylabel("peak of live tensors, MiB")
    handles = {label: h for h, label in zip(*axes[0, -1].get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="upper center", ncols=len(handles))
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    for column, name in enumerate(varied):
        rows = [row for row in found if row["against"] == name]
        for line, key in enumerate(("seconds", "bytes")):
            exponents = {row["what"]: f"{row['exponents'][key]:.1f}" for row in rows}
            _label_ends(axes[line, column], exponents)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _label_ends(axis: Axes, texts: dict[str, str]) -> None:
    """Write a text at each line's end, no two of them over each other."""
    points = 72 / axis.figure.dpi
    free = float("-inf")

    def end_of(line: Line2D) -> tuple[float, float]:
        x, y = (np.asarray(values, dtype=float)[-1] for values in line.get_data())
        return float(x), float(y)

    for drawn in sorted(axis.lines, key=lambda line: end_of(line)[1]):
        end = end_of(drawn)
        height = axis.transData.transform(end)[1] * points
        shown = max(height, free)
        free = shown + LINE_HEIGHT
        axis.annotate(
            texts[str(drawn.get_label())],
            end,
            (6, shown - height),
            textcoords="offset points",
            va="center",
            color=drawn.get_color(),
        )


def _short(size: int) -> str:
    return f"{size // 1024} Ki" if size >= 1024 else str(size)
