"""The unlearning curve of one run, drawn from its record's own catalogue."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

from loku_exp.evaluation.catalogue import LEAST_P, Metric
from loku_exp.results.schema import CurvePoint, Record
from loku_exp.results.table import title
from loku_exp.runtime.whole_files import write_file

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito: safe for the colour-blind
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
SIGNIFICANT = 0.05


def draw_curve(record: Record, file: Path) -> None:
    """Draw what a model knows of the forget set and what it keeps, and how forgotten that is, by epoch.

    Dotted lines are the reference's values: the aim is to meet them, not to pass them. Dashed lines are
    what counts as forgotten.

    Args:
        record: of the run.
        file: PNG to write.
    """
    points = sorted(record.curve, key=lambda point: point.step)
    panels = [panel for panel in _panels(record, points) if panel]
    if not panels:
        return
    width = 4.5 * len(panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(max(width, 5), 3.6), layout="constrained", squeeze=False
    )
    for axis, metrics in zip(axes[0], panels, strict=True):
        _draw(axis, record, points, metrics)
    figure.suptitle(_plain(title(record)), fontsize=10)
    write_file(file, lambda aside: figure.savefig(aside, dpi=150))
    plt.close(figure)


def _panels(record: Record, points: list[CurvePoint]) -> list[list[Metric]]:
    """Return the metrics of each panel: shares known and kept; a test, else goals, else other scales."""
    measured = [m for m in record.catalogue if sum(m.name in p.metrics for p in points) > 1]
    goals = record.judgement.goals if record.judgement else {}
    first = [m for m in measured if m.part in ("knowledge", "utility") and m.form == "share"]
    tests = [m for m in measured if m.form == "p"]
    rest = [m for m in measured if m.name in goals and m not in first]
    others = [m for m in measured if m.part in ("knowledge", "utility") and m not in first]
    return [first[: len(COLORS)], (tests or rest or others)[: len(COLORS)]]


def _draw(axis: Axes, record: Record, points: list[CurvePoint], metrics: list[Metric]) -> None:
    """Draw metrics over epochs, each only where it was measured."""
    goals = record.judgement.goals if record.judgement else {}
    reference = record.models["reference"].metrics if "reference" in record.models else {}
    for metric, color, marker in zip(metrics, COLORS, MARKERS, strict=False):
        known = [point for point in points if metric.name in point.metrics]
        values = [point.metrics[metric.name] for point in known]
        if metric.form == "p":
            values = [max(value, LEAST_P) for value in values]
        label = _plain(metric.label)
        axis.plot([point.epoch for point in known], values, color=color, marker=marker, label=label)
        dotted: dict[str, Any] = {"color": color, "linestyle": ":"}
        if metric.name in reference and metric.better == "reference":
            axis.axhline(reference[metric.name], label=f"{label}: reference", **dotted)
        if metric.name in goals:
            axis.axhline(goals[metric.name], color=color, linestyle="--", label="threshold")
    if all(metric.form == "p" for metric in metrics):
        axis.axhline(SIGNIFICANT, color="0.4", linestyle="--", label="p = .05")
        axis.set(yscale="log")
    axis.set_xlabel("epoch of unlearning")
    axis.legend(fontsize=8)


def _plain(text: str) -> str:
    """Return a text that a user may have written, with no formula in it for matplotlib."""
    return text.replace("$", r"\$")
