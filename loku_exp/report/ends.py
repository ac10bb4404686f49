"""Plots of where runs ended: over ranks, over sets of layers, and the front of forgetting and utility."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from loku_exp.report.collect import Run
from loku_exp.report.drawing import Looks, Plot, finished, handle, legend, panels
from loku_exp.report.estimates import pareto_front
from loku_exp.report.groups import Arm, Group
from loku_exp.report.means import mean_of
from loku_exp.report.measures import ABILITIES, UTILITIES, final, label, outcome

SUCCESSES = "filled: all runs succeeded; half: some; hollow: none"
MOST_PANELS = 3
MOST_NAMED = 16  # more names than that cover each other


def over_ranks(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw abilities (or utility and forgetting) against rank, with success marks (Fig. 3 of LoKU)."""
    arms = {arm: runs for arm, runs in group.by_rank().items() if arm.rank is not None}
    if len({arm.rank for arm in arms}) < 2:
        return "quality against rank: all runs have one rank"
    places = sorted({arm.rank for arm in arms if arm.rank is not None})
    return _lines(
        group, looks, folder, name, arms, lambda arm: places.index(arm.rank or 0),
        [str(rank) for rank in places], "LoRA rank", "Quality against rank",
    )  # fmt: skip


def over_layers(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw the same over the sets of layers that get the adapter (Fig. 4 of LoKU)."""
    arms = group.by_layers()
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
    # Below a threshold nothing more is gained, so arms that are there would all lie on one line.
    across = "forget_ma" if group.forgetting == "above_threshold" else group.forgetting
    figure, axes = panels(1, 1, 3.3)
    axis: Axes = axes[0, 0]
    used, best, places = [], front_of(group), {}
    for arm, runs in group.by_arm().items():
        look = {**looks.of(arm.method), "linestyle": ""}
        for run in runs:
            found = final(run.record)
            axis.scatter(found[across], found[group.utility], s=9, color=look["color"], alpha=0.35)
        x = mean_of(runs, across)
        places[arm] = (x.value if x else 0.0, points[arm][1])
        broken = any(outcome(run.record).collapsed for run in runs)
        face = "white" if broken else look["color"]
        edge = {"markeredgecolor": "black", "markeredgewidth": 1.6} if arm in best else {}
        axis.plot(*places[arm], **look | edge, markerfacecolor=face, markersize=8)
        used.append(handle(arm.method, **look))
    named = places if len(places) <= MOST_NAMED else {arm: places[arm] for arm in best}
    _name_points(axis, group, named)
    _goal_marks(axis, group, across)
    ring = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": "black"}
    legend(figure, [*used, handle("on the front", color="white", **ring, markeredgewidth=1.6)])
    names = ", ".join(group.label(arm) for arm in best) or "none, all collapsed"
    caption = (
        f"{label(group.utility)} against {label(across)} of the finished runs. Large markers: mean over "
        "units, with rank and layers where they differ; small: each run; hollow: a run of it collapsed; "
        f"black edge: no other method is better in both. On the front: {names}."
    )
    if across == "forget_ma":
        caption += (
            " Left of the dashed threshold nothing more is gained, and the front takes it as 0."
        )
    title = "Forgetting against utility"
    return finished(figure, folder, name, title, caption, f"{title} of {group.headline}. {caption}")


def front_of(group: Group) -> list[Arm]:
    """Return the arms that no other one beats in forgetting and utility; never one that collapsed."""
    arms = group.by_arm()
    points = {
        arm: point
        for arm, point in front_points(group).items()
        if not all(outcome(run.record).collapsed for run in arms[arm])
    }
    return [list(points)[index] for index in pareto_front(list(points.values()))]


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


def _name_points(axis: Axes, group: Group, places: dict[Arm, tuple[float, float]]) -> None:
    """Write rank and layers beside the markers; those of near markers share a line."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    clusters: list[tuple[tuple[float, float], list[str]]] = []
    for arm, (x, y) in places.items():
        text = " ".join(group.place(arm)).removeprefix("rank ")
        near = [
            names
            for (a, b), names in clusters
            if abs(a - x) < 0.03 * (right - left) and abs(b - y) < 0.05 * (high - low)
        ]
        if near:
            near[0].append(text)
        else:
            clusters.append(((x, y), [text]))
    for place, names in clusters:
        known = list(dict.fromkeys(name for name in names if name))
        text = ", ".join(known[:4]) + (", …" if len(known) > 4 else "")
        axis.annotate(text, place, xytext=(7, 4), textcoords="offset points")


def _goal_marks(axis: Axes, group: Group, across: str) -> None:
    """Draw the target's utility, and where the forget set counts as forgotten."""
    grey = {"color": "0.45", "linewidth": 1}
    before = mean_of(group.runs, str(group.utility), "target")
    if before:
        axis.axhline(before.value, **grey, linestyle=":")  # type: ignore[arg-type]
        axis.annotate("target", (0.01, before.value), xycoords=("axes fraction", "data"),
                      ha="left", va="bottom", color="0.35")  # fmt: skip
    axis.set_ylabel(label(str(group.utility)))
    if across == "forget_ma":
        limits = [run.record.training["thresholds"]["ma"] for run in group.runs]
        axis.axvline(fmean(limits), **grey, linestyle="--")  # type: ignore[arg-type]
        axis.annotate("threshold", (fmean(limits), 0.01), xycoords=("data", "axes fraction"),
                      xytext=(3, 0), textcoords="offset points", color="0.35")  # fmt: skip
        axis.set_xlabel(label(across))
    else:
        axis.set_xlim(left=min(-0.01, axis.get_xlim()[0]))
        goal = " (0: as the reference)" if across == "forget_ks" else ""
        axis.set_xlabel(f"{label(across)}{goal}")


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
            shift = (
                0.4 / max(len(lines), 4) * (number - (len(lines) - 1) / 2)
            )  # so that intervals do not cover each other
            found = {arm: mean_of(arms[arm], measure) for arm in members}
            known = sorted((place(arm), arm) for arm in members if found[arm])
            across = [x + shift for x, _ in known]
            up = [found[arm].value for _, arm in known]  # type: ignore[union-attr]
            axis.plot(across, up, **{**look, "marker": ""})
            for x, arm in zip(across, [arm for _, arm in known], strict=True):
                _mark(axis, x, found[arm], look, arms[arm])
            used.append(handle(group.label(members[0], place=False), **look))
        before = mean_of(group.runs, measure, "target")
        if before:
            axis.axhline(before.value, color="0.45", linestyle=":", linewidth=1)
        axis.set(title=label(measure), xlabel=axis_label)
        axis.set_xticks(range(len(ticks)), ticks)
    legend(figure, [*used, handle("target", color="0.45", linestyle=":")])
    absent = _absent_abilities(group)
    caption = (
        f"{', '.join(map(label, measures))} against {axis_label}: mean over all runs, bars: 95 % interval "
        f"over units where there are several; markers {SUCCESSES}."
        + (f" Not measured in these runs: {', '.join(absent)}." if absent else "")
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


def _absent_abilities(group: Group) -> list[str]:
    """Return which of TDEC's three abilities no run has."""
    names = {name for run in group.runs for name in final(run.record)}
    kinds = {"reasoning": "reasoning", "dialogue": "dialogue", "perplexity": "pile_ppl"}
    absent = [k for k, start in kinds.items() if not any(name.startswith(start) for name in names)]
    return absent if group.kind == "extraction" else []


def _panels_of(group: Group) -> list[str]:
    """Return what is drawn: abilities where they were measured, else utility and forgetting."""
    names = {name for run in group.runs for name in final(run.record)}
    found = [name for name in ABILITIES if name in names]
    if len(found) < MOST_PANELS:
        rest = ["forget_ks", "forget_ma", *UTILITIES[group.kind]]
        found += [name for name in rest if name in names and name not in found]
    return found[:MOST_PANELS]
