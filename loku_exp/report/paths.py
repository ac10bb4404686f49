"""Plots over the course of unlearning: curves, utility against forgetting, both against compute."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from loku_exp.evaluation.catalogue import Metric
from loku_exp.report.collect import Run
from loku_exp.report.drawing import Looks, Plot, finished, handle, legend, panels, variant
from loku_exp.report.findings import Findings
from loku_exp.report.groups import Arm
from loku_exp.report.matched import LEAST_POINTS, curve_of, goal, goal_name, kept_along, knowledge

Points = list[tuple[float, float]]
GREY: dict[str, Any] = {"color": "0.45", "linewidth": 1.0, "linestyle": (0, (2, 2))}
SIGNIFICANT = 0.05
MOST_COLUMNS = 5
NO_CURVE = "no curve was evaluated (evaluation.curve=none)"


def curves(found: Findings, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw what is known of the forget set and what is kept over epochs, a column of panels per rank."""
    pair = _pair(found)
    if pair is None:
        return f"unlearning curves: {NO_CURVE}"

    def draw(axis: Axes, runs: list[Run], metric: Metric, look: dict[str, Any]) -> None:
        for run in runs:
            thin = {**look, "marker": "", "linewidth": 0.6, "alpha": 0.35}
            axis.plot(*_xy(mean_path([run], metric, by_epoch=True)), **thin)
        axis.plot(*_xy(mean_path(runs, metric, by_epoch=True)), **look, markersize=3)

    what = (
        "over epochs of unlearning; thick: mean over runs, to the last epoch that all of them have; thin: "
        "each run."
    )
    figure, caption = _two_rows(found, looks, pair, draw, "epoch", what)
    return _plot(found, figure, folder, name, "Unlearning curves", caption)


def path(found: Findings, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw what is kept against forgetting, epochs as growing markers (Fig. 5 of LoKU)."""
    tests = [m for m in found.words.values() if m.part == "test"]
    along = [m for m in tests if _pair(found, m)]
    known = along[0] if along else knowledge(found)
    pair = _pair(found, known)
    if pair is None:
        return f"path of forgetting and utility: {NO_CURVE}"
    across, kept = pair
    columns, said = _ranks(found)
    figure, axes = panels(1, len(columns), 3.2, sharex=True, sharey=True)
    used = []
    limit = math.log10(SIGNIFICANT) if across.form == "p" else _goal(found, across)
    for axis, (rank, arms) in zip(axes[0], columns.items(), strict=True):
        for arm, runs in arms.items():
            look = looks.of(arm.method) | variant(found.group.by_arm(), arm)
            along_x, along_y = (dict(mean_path(runs, metric)) for metric in (across, kept))
            points = [(x, along_y[step]) for step, x in along_x.items()]
            axis.plot(*_xy(points), **{**look, "marker": ""})
            sizes = [12 + 60 * i / max(1, len(points) - 1) for i in range(len(points))]
            of_points = {key: look.get(key) for key in ("color", "marker", "alpha")}
            axis.scatter(*_xy(points), s=sizes, **of_points)
            used.append(handle(found.group.label(arm, place=False), **look))
        if limit is not None:
            axis.axvline(limit, **GREY)
        axis.set(title=rank, xlabel=_axis(across))
    axes[0, 0].set_ylabel(_axis(kept))
    line = "p = .05" if across.form == "p" else goal_name(found, across.name)
    legend(figure, used if limit is None else [*used, handle(line, **GREY)])
    caption = (
        f"{kept.label} against {_axis(across)}, markers growing with the epochs, starting at the target"
        + (f"; grey: {line}" if limit is not None else "")
        + ". Mean over runs."
        + (" A p-value is high for a collapsed model too." if across.form == "p" else "")
        + said
    )
    return _plot(found, figure, folder, name, "Path of forgetting and utility", caption)


def compute(found: Findings, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw what is forgotten and kept against training FLOPs (Fig. 2 of LoKU)."""
    pair = _pair(found)
    known = [cost for run in found.group.runs if (cost := _flops(run)) is not None]
    if pair is None or len(known) < len(found.group.runs):
        return "quality against compute: no curve, or no cost.flops in some record"

    def draw(axis: Axes, runs: list[Run], metric: Metric, look: dict[str, Any]) -> None:
        for run in runs:
            points = _by_flops(run, metric)
            axis.plot(*_xy(points), **{**look, "marker": "", "linewidth": 1.0})
            axis.plot(*_xy(points[-1:]), **{**look, "linestyle": ""}, markersize=5)
        axis.xaxis.set_major_formatter(EngFormatter())

    what = (
        "against training FLOPs, spread evenly over the updates of a run; each run a line, a marker at its "
        "end. A curve begins after Fisher pass and low-rank step of its init, counted in full, though runs "
        "on one model and forget set share the Fisher pass."
    )
    figure, caption = _two_rows(found, looks, pair, draw, "FLOPs", what)
    return _plot(found, figure, folder, name, "Quality against training compute", caption)


def mean_path(runs: list[Run], metric: Metric, *, by_epoch: bool = False) -> Points:
    """Return the mean over runs at every update (or epoch) that all of them have, as it is averaged."""
    tables = []
    for run in runs:
        epochs = {point.step: point.epoch for point in run.record.curve}
        known = curve_of(run.record, metric.name)
        tables.append(
            {(epochs[s] if by_epoch else s): metric.scaled(v[metric.name]) for s, v in known}
        )
    shared = set.intersection(*(set(table) for table in tables)) if tables else set()
    return [(x, fmean(table[x] for table in tables)) for x in sorted(shared)]


def _two_rows(
    found: Findings, looks: Looks, pair: tuple[Metric, Metric],
    draw: Callable[[Axes, list[Run], Metric, dict[str, Any]], None], across: str, what: str,
) -> tuple[Figure, str]:  # fmt: skip
    """Draw knowledge of the forget set (upper row) and what is kept (lower), a column per rank."""
    columns, said = _ranks(found)
    figure, axes = panels(2, len(columns), 1.9, sharex=True, sharey="row")
    used = []
    goals = [_goal(found, metric) for metric in pair]
    for column, (rank, arms) in enumerate(columns.items()):
        for axis, metric, met in zip(axes[:, column], pair, goals, strict=True):
            for arm, runs in arms.items():
                look = looks.of(arm.method) | variant(found.group.by_arm(), arm)
                draw(axis, runs, metric, look)
                used.append(handle(found.group.label(arm, place=False), **look))
            if met is not None:
                axis.axhline(met, **GREY)
        axes[0, column].set_title(rank)
        axes[1, column].set_xlabel(across)
    for axis, metric in zip(axes[:, 0], pair, strict=True):
        axis.set_ylabel(_axis(metric))
    if goals != [None, None]:
        used.append(handle("to be met", **GREY))
        what += " Grey: what is to be met."
    legend(figure, used)
    rows = f"{pair[0].label} (upper row) and {pair[1].label} (lower row)"
    return figure, f"{rows} {what}{said}"


def _pair(found: Findings, known: Metric | None = None) -> tuple[Metric, Metric] | None:
    """Return what is known and what is kept that the curves of these runs have at three points or more."""
    known = known or knowledge(found)
    runs = [run for run in found.group.runs if known and curve_of(run.record, known.name)]
    if (
        known is None
        or max((len(curve_of(r.record, known.name)) for r in runs), default=0) < LEAST_POINTS
    ):
        return None
    kept = kept_along(found, runs, known)
    return (known, kept[0]) if kept else None


def _ranks(found: Findings) -> tuple[dict[str, dict[Arm, list[Run]]], str]:
    """Return the arms of one set of layers that have a curve, by rank, for columns of panels.

    With them what is to be said of them, as the end of a caption: their units, and what is left out.
    """
    group, columns = found.group, dict[str, dict[Arm, list[Run]]]()
    known = [a for a, runs in group.by_rank().items() if all(run.record.curve for run in runs)]
    part, where = found.alike(known)
    for arm, runs in part.group.by_arm().items():
        columns.setdefault(f"rank {arm.rank}" if arm.rank else "no adapter", {})[arm] = runs
    columns = dict(list(columns.items())[:MOST_COLUMNS])
    drawn = {arm for arms in columns.values() for arm in arms}
    left = [group.label(arm) for arm in group.by_arm() if arm not in drawn]
    return columns, where + (f" Not drawn, see the tables: {'; '.join(left)}." if left else "")


def _flops(run: Run) -> tuple[float, float] | None:
    """Return FLOPs before and during training, or None where the record has none."""
    cost = run.record.cost.get("flops")
    if not isinstance(cost, dict) or "training" not in cost:
        return None
    return cost.get("fisher", 0.0) + cost.get("low_rank", 0.0), cost["training"]


def _by_flops(run: Run, metric: Metric) -> Points:
    before, training = _flops(run) or (0.0, 0.0)
    known = curve_of(run.record, metric.name)
    last = max((step for step, _ in known), default=1) or 1
    return [(before + training * step / last, metric.scaled(v[metric.name])) for step, v in known]


def _goal(found: Findings, metric: Metric) -> float | None:
    """Return the mean of what the runs are to meet, as it is drawn."""
    goals = [goal(run.record, metric.name) for run in found.group.runs]
    known = [metric.scaled(value) for value in goals if value is not None]
    return fmean(known) if known and metric.better != "none" else None


def _axis(metric: Metric) -> str:
    return f"log10 of {metric.label}" if metric.form == "p" else metric.label


def _plot(
    found: Findings, figure: Figure, folder: Path, name: str, title: str, caption: str
) -> Plot:
    arms = "; ".join(found.group.label(arm) for arm in found.group.by_arm())
    alt = f"{title} of {found.group.headline}. {caption} Methods: {arms}. The tables hold the numbers."
    return finished(figure, folder, name, title, caption, alt)


def _xy(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
