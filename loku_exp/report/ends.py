"""Plots of where runs ended: over ranks, over sets of layers, and the front of forgetting and utility."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from loku_exp.report.collect import Run
from loku_exp.report.drawing import Looks, Plot, finished, handle, legend, panels
from loku_exp.report.estimates import pareto_front
from loku_exp.report.groups import Arm, Group
from loku_exp.report.measures import ABILITIES, UTILITIES, final, label, outcome
from loku_exp.report.tables import mean_of

SUCCESSES = "filled: all runs succeeded; half: some; hollow: none"
MOST_PANELS = 3


def over_ranks(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw abilities (or utility and forgetting) against rank, with success marks (Fig. 3 of LoKU)."""
    arms = {arm: runs for arm, runs in group.by_arm().items() if arm.rank is not None}
    if len({arm.rank for arm in arms}) < 2:
        return "quality against rank: all runs have one rank"
    places = sorted({arm.rank for arm in arms if arm.rank is not None})
    return _lines(
        group, looks, folder, name, arms, lambda arm: places.index(arm.rank or 0),
        [str(rank) for rank in places], "LoRA rank", "Quality against rank",
    )  # fmt: skip


def over_layers(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw the same over the sets of layers that get the adapter (Fig. 4 of LoKU)."""
    arms = {arm: runs for arm, runs in group.by_arm().items() if arm.targets}
    places = sorted({str(arm.targets) for arm in arms})
    if len(places) < 2:
        return "quality against layers: all runs adapt the same set of layers"
    return _lines(
        group, looks, folder, name, arms, lambda arm: places.index(str(arm.targets)),
        places, "layers with an adapter", "Quality against layers",
    )  # fmt: skip


def front(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw what is kept against the gap to the goal of forgetting, and the arms no other one beats."""
    points = front_points(group)
    if not points or group.forgetting is None or group.utility is None:
        return "front of forgetting and utility: the runs share no measure of one of them"
    figure, axes = panels(1, 1, 3.6)
    axis: Axes = axes[0, 0]
    used, best = [], pareto_front(list(points.values()))
    for arm, (gap, kept) in points.items():
        look = looks.of(arm.method)
        collapsed = any(outcome(run.record).collapsed for run in group.by_arm()[arm])
        for run in group.by_arm()[arm]:
            found = final(run.record)
            axis.scatter(
                found[group.forgetting], found[group.utility], s=9, color=look["color"], alpha=0.35
            )
        face = "white" if collapsed else look["color"]
        axis.plot(gap, kept, **{**look, "linestyle": ""}, markerfacecolor=face, markersize=8)
        used.append(handle(arm.method, **{**look, "linestyle": ""}))
    _number_points(axis, group, points)
    line = sorted(list(points.values())[index] for index in best)
    axis.step(
        [gap for gap, _ in line],
        [kept for _, kept in line],
        where="post",
        color="0.45",
        linestyle="--",
        zorder=0,
    )
    before = mean_of(group.runs, group.utility, "target")
    if before:
        axis.axhline(before.value, color="0.45", linestyle=":", linewidth=1)
        axis.annotate("target", (0.995, before.value), xycoords=("axes fraction", "data"),
                      ha="right", va="bottom", color="0.35")  # fmt: skip
    goal = "reference" if group.forgetting == "forget_ks" else "goal"
    axis.set(xlabel=f"{label(group.forgetting)} (0: at the {goal})", ylabel=label(group.utility))
    axis.set_xlim(left=min(-0.01, axis.get_xlim()[0]))
    legend(figure, [*used, handle("front", color="0.45", linestyle="--")])
    listed = "; ".join(f"{n + 1} {group.label(arm)}" for n, arm in enumerate(points))
    names = ", ".join(group.label(list(points)[index]) for index in best)
    caption = (
        f"{label(group.utility)} against {label(group.forgetting)} of the finished runs; up and left is "
        "better. Large markers: mean over units, numbered; small: each run; hollow: at least one run "
        f"collapsed. No other arm beats those on the dashed front: {names}. Numbers: {listed}."
    )
    title = "Forgetting against utility"
    return finished(figure, folder, name, title, caption, f"{title} of {group.headline}. {caption}")


def front_points(group: Group) -> dict[Arm, tuple[float, float]]:
    """Return the mean gap and utility of each arm."""
    if group.forgetting is None or group.utility is None:
        return {}
    points = {}
    for arm, runs in group.by_arm().items():
        gap, kept = mean_of(runs, group.forgetting), mean_of(runs, group.utility)
        if gap and kept:
            points[arm] = (gap.value, kept.value)
    return points


def _number_points(axis: Axes, group: Group, points: dict[Arm, tuple[float, float]]) -> None:
    """Number the arms beside their markers; those at one place share a label."""
    places: dict[tuple[float, float], list[int]] = {}
    for number, (gap, kept) in enumerate(points.values()):
        places.setdefault((round(gap, 2), round(kept, 2)), []).append(number)
    values = list(points.values())
    for numbers in places.values():
        text = ", ".join(str(number + 1) for number in numbers)
        axis.annotate(text, values[numbers[0]], xytext=(6, 5), textcoords="offset points")


def _lines(
    group: Group, looks: Looks, folder: Path, name: str, arms: dict[Arm, list[Run]],
    place: Callable[[Arm], int], ticks: list[str], axis_label: str, title: str,
) -> Plot | str:  # fmt: skip
    measures = _panels_of(group)
    figure, axes = panels(1, len(measures), 3.0)
    lines: dict[Any, list[Arm]] = {}
    for arm in arms:
        rest = arm._replace(rank=None) if "rank" in axis_label else arm._replace(targets=None)
        lines.setdefault(rest, []).append(arm)
    used = []
    for axis, measure in zip(axes[0], measures, strict=True):
        for number, members in enumerate(lines.values()):
            look = looks.of(members[0].method)
            shift = 0.06 * (number - (len(lines) - 1) / 2)  # so that intervals do not cover each other
            found = {arm: mean_of(arms[arm], measure) for arm in members}
            known = sorted((place(arm), arm) for arm in members if found[arm])
            across = [x + shift for x, _ in known]
            up = [found[arm].value for _, arm in known]  # type: ignore[union-attr]
            axis.plot(across, up, **{**look, "marker": ""})
            for x, arm in zip(across, [arm for _, arm in known], strict=True):
                _mark(axis, x, found[arm], look, arms[arm])
            used.append(handle(_without(group, members[0], axis_label), **look))
        before = mean_of(group.runs, measure, "target")
        if before:
            axis.axhline(before.value, color="0.45", linestyle=":", linewidth=1)
        axis.set(title=label(measure), xlabel=axis_label)
        axis.set_xticks(range(len(ticks)), ticks)
    legend(figure, [*used, handle("target", color="0.45", linestyle=":")])
    absent = [label(m) for m in ABILITIES if m not in measures] if group.kind == "extraction" else []
    caption = (
        f"{', '.join(map(label, measures))} against {axis_label}: mean over all runs, bars: 95 % interval "
        f"over units where there are several; markers {SUCCESSES}."
        + (f" Not measured here: {', '.join(absent)}." if absent else "")
    )
    alt = f"{title} of {group.headline}. {caption} The table of means holds the numbers."
    return finished(figure, folder, name, title, caption, alt)


def _mark(axis: Axes, x: float, estimate: Any, look: dict[str, Any], runs: list[Run]) -> None:
    succeeded = [bool(outcome(run.record).success) for run in runs]
    style = "full" if all(succeeded) else "left" if any(succeeded) else "none"
    if estimate.low is not None:
        axis.vlines(x, estimate.low, estimate.high, color=look["color"], linewidth=0.8)
    marker = {**look, "linestyle": "", "fillstyle": style}
    axis.plot([x], [estimate.value], **marker, markerfacecoloralt="white", markersize=6)


def _panels_of(group: Group) -> list[str]:
    """Return what is drawn: abilities where they were measured, else utility and forgetting."""
    names = {name for run in group.runs for name in final(run.record)}
    found = [name for name in ABILITIES if name in names]
    if len(found) < MOST_PANELS:
        rest = ["forget_ks", "forget_ma", *UTILITIES[group.kind]]
        found += [name for name in rest if name in names and name not in found]
    return found[:MOST_PANELS]


def _without(group: Group, arm: Arm, axis_label: str) -> str:
    """Return an arm's name without what the axis says."""
    if "rank" in axis_label:
        return group.label(arm).replace(f", rank {arm.rank}", "")
    return group.label(arm).replace(f", {arm.targets}", "")
