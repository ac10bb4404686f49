"""Plots of where runs ended: the front of forgetting and utility, and quality over ranks and layers."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox, BboxBase

from loku_exp.evaluation.catalogue import Metric
from loku_exp.report.answer import core_of, front_of
from loku_exp.report.collect import Run
from loku_exp.report.drawing import Looks, Plot, finished, handle, legend, panels, variant
from loku_exp.report.estimates import Estimate
from loku_exp.report.findings import Findings, ends_of
from loku_exp.report.groups import Arm

# How a marker is filled says one thing in every plot.
FILLS = {"full": "all runs succeeded", "left": "some runs succeeded", "none": "no run succeeded"}
MOST_PANELS = 3
CROSS: dict[str, Any] = {"marker": "x", "color": "black", "linestyle": "", "markersize": 5}
BESIDE: dict[str, Any] = {"textcoords": "offset points", "ha": "center"}
OFFSETS = ((0, 6), (11, -3), (-11, -3), (0, -13))  # points: above a mark, right, left, below
RING: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 1.6}
DOTTED: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1}


def front(found: Findings, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw what is kept against the gap to the goal of forgetting, and the arms no other one beats."""
    gap, kept, group = found.gap, found.kept, found.group
    if gap is None or kept is None:
        return "front of forgetting and utility: the runs share no measure of one of them"
    figure, axes = panels(1, 1, 3.3)
    axis: Axes = axes[0, 0]
    core, targets = core_of(found), Counter(arm.targets for arm in group.by_arm())
    usual = targets.most_common(1)[0][0]  # layers that need no word
    best, places, texts, used = front_of(core), {}, {}, []
    for arm, runs in group.by_arm().items():
        part = core if arm in core.group.by_arm() else found
        x, y = part.mean(gap, arm), part.mean(kept, arm)
        if x is None or y is None:
            continue
        look = {**looks.of(arm.method), "linestyle": ""}
        used.append(handle(arm.method, **look))
        ends = found.frame[
            (found.frame.arm == group.label(arm)) & (found.frame.subject == "unlearned")
        ]
        values = ends.pivot_table(index="run", columns="metric", values="value")
        axis.scatter(values[gap.name], values[kept.name], s=9, color=look["color"], alpha=0.35)
        places[arm] = (x.value, y.value)
        axis.plot(
            *places[arm], **look | _filled(runs) | (RING if arm in best else {}), markersize=8
        )
        if any(run.collapsed for run in runs):
            axis.plot(*places[arm], **CROSS)
        named = group.place(arm if arm.targets != usual else arm._replace(targets=None))
        texts[arm] = " ".join(named).removeprefix("rank ")
    _target_line(axis)
    again = _kept_by_reference(found) if gap.part == "gap" else None
    if again is not None:
        axis.plot([0], [again], "k*", markersize=9, clip_on=False)  # its gap to itself is none
        used.append(handle("reference", color="black", marker="*", linestyle=""))
    axis.set_xlim(left=min(-0.01, axis.get_xlim()[0]))
    goal = " (0: forgotten)" * (gap.part == "gap")  # what is known of unseen text is not 0
    axis.set(xlabel=gap.label + goal, ylabel=kept.label)
    drawn = [group.by_arm()[arm] for arm in places]
    used += [handle("on the front", color="0.7", marker="o", linestyle="", **RING)] if best else []
    if any(run.collapsed for runs in drawn for run in runs):
        used.append(handle("a run collapsed", **CROSS))
    legend(figure, [*used, *_fills(drawn)])
    first = sorted(places, key=lambda arm: arm not in best)
    left = _write_apart(figure, axis, [(texts[arm], places[arm]) for arm in first])
    caption = _caption_of_front(found, core, gap, kept)
    caption += f" Marks without room for their rank: {left}; the table has them." if left else ""
    title = "Forgetting against utility"
    return finished(figure, folder, name, title, caption, f"{title} of {group.headline}. {caption}")


def _write_apart(figure: Figure, axis: Axes, texts: list[tuple[str, tuple[float, float]]]) -> int:
    """Write texts beside their marks where they cover no other and no mark; return how many cannot be."""
    figure.draw_without_rendering()  # the panel is where it will be
    half = 4 * figure.dpi / 72  # of a mark's width, in pixels
    at = [axis.transData.transform(place) for _, place in texts]
    taken: list[BboxBase] = [Bbox([point - half, point + half]) for point in at]
    left = 0
    for text, place in texts:
        for offset in OFFSETS if text else ():
            written = axis.annotate(text, place, xytext=offset, **BESIDE)
            box = written.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            written.remove()
        else:
            left += bool(text)
    return left


def _caption_of_front(found: Findings, core: Findings, gap: Metric, kept: Metric) -> str:
    names = ", ".join(found.group.label(arm) for arm in front_of(core))
    caption = (
        f"{kept.label} (share of the target's) against {gap.label} of the finished runs. Large markers: "
        "mean over units, with rank and layers where they differ; small: each run; black edge: no other "
        "method that never collapsed is better in both. On the front: "
        f"{names or 'none, for each collapsed'}."
    )
    if len(core.group.by_arm()) < len(found.group.by_arm()):
        caption += " Methods that ran on other units than these are drawn, and not on the front."
    return caption


def _target_line(axis: Axes) -> None:
    """Draw what the target keeps, which is all of it."""
    axis.axhline(1, **DOTTED)
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axis.annotate("target", (0.99, 1), color="0.35", **place)


def _kept_by_reference(found: Findings) -> float | None:
    """Return the reference's share of the target's utility, where more of it is better."""
    before, again = (found.mean(found.utility, None, name) for name in ("target", "reference"))
    words = found.utility
    if words is None or words.better == "low" or words.form == "perplexity":
        return None
    return again.value / before.value if before and again and before.value else None


def over_ranks(found: Findings, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw abilities (or utility and forgetting) against rank, with success marks (Fig. 3 of LoKU)."""
    arms = {arm: runs for arm, runs in found.group.by_rank().items() if arm.rank is not None}
    ranks = sorted({arm.rank for arm in arms if arm.rank is not None})
    if len(ranks) < 2:
        return "quality against rank: all runs have one rank"

    def rest(arm: Arm) -> Arm:
        return arm._replace(rank=None)

    places = {arm: ranks.index(arm.rank or 0) for arm in arms}
    ticks = [str(rank) for rank in ranks]
    figure, caption = _lines(found, looks, arms, places, rest, ticks, "LoRA rank")
    title = "Quality against rank"
    return finished(
        figure, folder, name, title, caption, f"{title} of {found.group.headline}. {caption}"
    )


def over_layers(found: Findings, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw the same over the sets of layers that get the adapter (Fig. 4 of LoKU)."""
    arms = found.group.by_layers()
    ticks = sorted({str(arm.targets) for arm in arms})
    if len(ticks) < 2:
        return "quality against layers: all runs adapt the same set of layers"

    def rest(arm: Arm) -> Arm:
        return arm._replace(targets=None)

    places = {arm: ticks.index(str(arm.targets)) for arm in arms}
    figure, caption = _lines(found, looks, arms, places, rest, ticks, "layers with an adapter")
    title = "Quality against layers"
    return finished(
        figure, folder, name, title, caption, f"{title} of {found.group.headline}. {caption}"
    )


def _lines(
    found: Findings, looks: Looks, arms: dict[Arm, list[Run]], places: dict[Arm, int],
    rest: Callable[[Arm], Arm], ticks: list[str], across: str,
) -> tuple[Any, str]:  # fmt: skip
    """Draw a panel per metric and a line per method; intervals do not cover each other."""
    metrics = _panels_of(found)
    part, where = found.alike(arms)
    arms = part.group.by_arm()
    figure, axes = panels(1, len(metrics), 3.0)
    lines: dict[Arm, list[Arm]] = {}
    for arm in sorted(arms, key=lambda arm: places[arm]):
        lines.setdefault(rest(arm), []).append(arm)
    used = [handle("target", **DOTTED)]
    for axis, metric in zip(axes[0], metrics, strict=True):
        for number, members in enumerate(lines.values()):
            shift = 0.2 / max(len(lines), 4) * (number - (len(lines) - 1) / 2)
            look = looks.of(members[0].method) | variant(found.group.by_arm(), members[0])
            known = [
                (places[a] + shift, e, arms[a]) for a in members if (e := part.mean(metric, a))
            ]
            axis.plot(
                [x for x, *_ in known], [e.value for _, e, _ in known], **look | {"marker": ""}
            )
            for x, estimate, runs in known:
                _mark(axis, x, metric, estimate, look, runs)
            used.insert(-1, handle(found.group.label(members[0], place=False), **look))
        if before := part.mean(metric, None, "target"):
            axis.axhline(before.value, **DOTTED)
        axis.set(title=metric.label, xlabel=across)
        axis.set_xticks(range(len(ticks)), ticks)
    legend(figure, [*used, *_fills(arms.values())])
    labels = ", ".join(metric.label for metric in metrics)
    return figure, (
        f"{labels} against {across}: means, bars: 95 % interval over units where there are several."
        + (where or " Over all runs: the table of means holds the numbers.")
    )


def _mark(
    axis: Axes, x: float, metric: Metric, estimate: Estimate, look: dict[str, Any], runs: list[Run]
) -> None:
    low, high = ends_of(metric, estimate)
    if low is not None and high is not None:
        axis.vlines(x, low, high, color=look["color"], linewidth=0.8)
    axis.plot([x], [estimate.value], **look | {"linestyle": ""} | _filled(runs), markersize=6)


def _filled(runs: list[Run]) -> dict[str, Any]:
    """Return how a marker is filled, a key of `FILLS`; where success cannot be said it is full."""
    judged = [run.success for run in runs if run.success is not None]
    fill = "full" if all(judged) else "left" if any(judged) else "none"
    return {"fillstyle": fill, "markerfacecoloralt": "white"}


def _fills(arms: Iterable[list[Run]]) -> list[Line2D]:
    """Return what a legend says of fillings that occur, where success can be said of some run."""
    judged = [runs for runs in arms if any(run.success is not None for run in runs)]
    occur = {_filled(runs)["fillstyle"]: _filled(runs) for runs in judged}
    look: dict[str, Any] = {"marker": "o", "color": "0.35", "linestyle": ""}
    return [handle(FILLS[fill], **look, **occur[fill]) for fill in FILLS if fill in occur]


def _panels_of(found: Findings) -> list[Metric]:
    """Return what is drawn: abilities where they were measured, else forgetting and what is kept."""
    abilities = [metric for metric in found.summary if metric.part == "ability"]
    rest = [metric for metric in (found.gap, found.utility, found.kept) if metric]
    return list(dict.fromkeys([*abilities, *rest]))[:MOST_PANELS]
