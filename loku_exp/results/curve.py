"""The unlearning curve of one run."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

from loku_exp.results.schema import CurvePoint, Record
from loku_exp.results.table import title
from loku_exp.runtime.cache import write_file

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito: safe for the colour-blind
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
Lines = dict[str, tuple[str, str, str]]  # metric: label, colour, marker


def curve(record: Record, file: Path) -> None:
    """Draw what the model knows of forget and retained texts, and how forgotten that is, over epochs.

    Dotted lines are the reference's values: the aim is to meet them, not to pass them. Dashed lines are
    what counts as forgotten.

    Args:
        record: of the run.
        file: PNG to write.
    """
    points = sorted(record.curve, key=lambda point: point.step)
    reference = record.models["reference"].metrics if "reference" in record.models else {}
    panels = _extraction if "forget_ma" in points[0].metrics else _questions
    figure = panels(record, points, reference)
    figure.suptitle(title(record), fontsize=10)
    write_file(file, lambda aside: figure.savefig(aside, dpi=150))
    plt.close(figure)


def _questions(record: Record, points: list[CurvePoint], reference: dict[str, float]) -> Any:
    """Draw probability on forget and retain set, and forget quality where there is a reference."""
    compares = any("forget_quality" in point.metrics for point in points)
    figure, axes = _figure(1 + compares)
    lines = {
        "forget_prob": ("forget set", BLUE, "o"),
        "retain_prob": ("retain set", ORANGE, "s"),
    }
    _draw(axes[0], points, lines, reference)
    axes[0].set(ylabel="answer probability", ylim=(0, 1.02))
    if compares:
        _draw(axes[1], points, {"forget_quality": ("unlearned", GREEN, "o")}, {}, floor=1e-300)
        axes[1].axhline(0.05, color="0.4", linestyle="--", label="p = .05")
        axes[1].set(yscale="log", ylabel="forget quality (p of KS test)")
    return _finished(figure, axes)


def _extraction(record: Record, points: list[CurvePoint], reference: dict[str, float]) -> Any:
    """Draw memorisation accuracy and extraction likelihood of forget set and siblings."""
    limits = record.training.get("thresholds")
    known = {name for point in points for name in point.metrics if name.startswith("forget_el")}
    el = f"el{limits['n']}" if limits else min(known).removeprefix("forget_")
    figure, axes = _figure(2)
    for axis, metric, label in (
        (axes[0], "ma", "memorisation accuracy"),
        (axes[1], el, f"extraction likelihood EL_{el.removeprefix('el')}"),
    ):
        lines = {
            f"forget_{metric}": ("forget set", BLUE, "o"),
            f"sibling_{metric}": ("siblings", ORANGE, "s"),
        }
        _draw(axis, points, lines, reference)
        if limits:
            key = "ma" if metric == "ma" else "el"
            axis.axhline(limits[key], color="0.4", linestyle="--", label="threshold")
        axis.set(ylabel=label, ylim=(0, 1.02))
    return _finished(figure, axes)


def _figure(panels: int) -> tuple[Any, list[Axes]]:
    width = 9 if panels == 2 else 5
    figure, axes = plt.subplots(
        1, panels, figsize=(width, 3.6), layout="constrained", squeeze=False
    )
    return figure, list(axes[0])


def _draw(
    axis: Axes,
    points: list[CurvePoint],
    lines: Lines,
    reference: dict[str, float],
    floor: float = 0.0,
) -> None:
    """Draw metrics over epochs, each only where it was measured."""
    for name, (label, color, marker) in lines.items():
        known = [point for point in points if name in point.metrics]
        epochs = [point.epoch for point in known]
        values = [max(point.metrics[name], floor) for point in known]
        axis.plot(epochs, values, color=color, marker=marker, label=label)
        if name in reference:
            axis.axhline(reference[name], color=color, linestyle=":", label=f"{label}, reference")


def _finished(figure: Any, axes: list[Axes]) -> Any:
    for axis in axes:
        axis.set_xlabel("epoch of unlearning")
        axis.legend(fontsize=9)
    return figure
