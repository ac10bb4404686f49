"""Plots over the course of unlearning: curves, utility against forget quality, against compute."""

from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loku_exp.report.collect import Run
from loku_exp.report.drawing import Looks, Plot, finished, handle, legend, panels
from loku_exp.report.groups import Arm, Group
from loku_exp.report.matched import KNOWLEDGE, goal, path
from loku_exp.report.measures import UTILITIES, final, label

Points = list[tuple[float, float]]
GREY: dict[str, Any] = {"color": "0.45", "linewidth": 1.0}
MOST_COLUMNS = 5


def curves(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw what is known of forget set and kept texts over epochs, a column of panels per rank."""
    kept = _curve_utility(group)
    if kept is None:
        return "unlearning curves: no curve was evaluated (evaluation.curve=none)"

    def draw(axis: Axes, runs: list[Run], measure: str, look: dict[str, Any]) -> None:
        for run in runs:
            thin = {**look, "marker": "", "linewidth": 0.6, "alpha": 0.35}
            axis.plot(*_xy(mean_path([run], measure, by_epoch=True)), **thin)
        axis.plot(*_xy(mean_path(runs, measure, by_epoch=True)), **look, markersize=3)

    what = (
        f"over epochs of unlearning; thick: mean over runs, to the last epoch that all of them have; thin: "
        f"each run; grey: the {_goal_name(group)}, which is to be met."
    )
    figure, caption = _two_rows(group, looks, kept, draw, "epoch", what)
    title = "Unlearning curves"
    return finished(figure, folder, name, title, caption, _alt(group, title, caption))


def quality_and_utility(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw utility against forget quality, epochs as growing markers (Fig. 5 of LoKU)."""
    if group.kind != "questions":
        return "utility against forget quality: a plot for TOFU's shape of data"
    kept = _curve_utility(group, "log10_forget_quality")
    if kept is None or not any(path(run.record, "log10_forget_quality") for run in group.runs):
        return "utility against forget quality: no reference, or no curve (evaluation.curve=none)"
    columns = ranks(group)
    figure, axes = panels(1, len(columns), 3.2, sharex=True, sharey=True)
    used = []
    for axis, (rank, arms) in zip(axes[0], columns.items(), strict=True):
        for arm, runs in arms.items():
            look = looks.of(arm.method) | variant(arms, arm)
            across = mean_path(runs, "log10_forget_quality")
            up = mean_path(runs, kept)
            points = [(x, y) for (_, x), (_, y) in zip(across, up, strict=False)]
            axis.plot(*_xy(points), **{**look, "marker": ""})
            sizes = [12 + 60 * i / max(1, len(points) - 1) for i in range(len(points))]
            axis.scatter(*_xy(points), s=sizes, color=look["color"], marker=look["marker"])
            used.append(handle(group.label(arm, place=False), **look))
        axis.axvline(-1.30103, **GREY, linestyle=(0, (2, 2)))
        references = [final(run.record, "reference").get(kept) for run in group.runs]
        known = [value for value in references if value is not None]
        if known:
            axis.scatter([0], [fmean(known)], marker="*", s=110, color="0.45", zorder=3)
        axis.set(title=rank, xlabel="log10 forget quality")
    axes[0, 0].set_ylabel(label(kept))
    star = handle("reference", color="0.45", marker="*", linestyle="", markersize=10)
    legend(figure, [*used, star, handle("p = .05", **GREY, linestyle=(0, (2, 2)))])
    caption = (
        f"{label(kept)} against log10 of forget quality (p of the KS test), markers growing with the "
        "epochs, starting at the target; right of the dashed line a model is not distinguishable from the "
        "reference (star). Mean over runs. Forget quality is high for a collapsed model too."
        + _left_out(group)
    )
    if kept != "model_utility":
        caption += " Model utility needs generations at every snapshot: evaluation.curve=full."
    title = "Utility against forget quality"
    return finished(figure, folder, name, title, caption, _alt(group, title, caption))


def compute(group: Group, looks: Looks, folder: Path, name: str) -> Plot | str:
    """Draw what is forgotten and kept against training FLOPs (Fig. 2 of LoKU)."""
    kept = _curve_utility(group)
    known = [cost for run in group.runs if (cost := flops(run)) is not None]
    if kept is None or len(known) < len(group.runs):
        return "quality against compute: no curve, or no cost.flops in some record"
    unit, power = _unit(max(map(sum, known)))

    def draw(axis: Axes, runs: list[Run], measure: str, look: dict[str, Any]) -> None:
        for run in runs:
            points = _by_flops(run, measure, unit)
            axis.plot(*_xy(points), **{**look, "marker": "", "linewidth": 1.0})
            axis.plot(*_xy(points[-1:]), **{**look, "linestyle": ""}, markersize=5)

    what = (
        "against training FLOPs, spread evenly over the updates of a run; each run a line, a marker at its "
        f"end; grey: the {_goal_name(group)}. A curve begins after Fisher pass and low-rank step of "
        "its init, counted in full, though runs on one model and forget set share the Fisher pass."
    )
    figure, caption = _two_rows(group, looks, kept, draw, f"{power}FLOPs", what)
    title = "Quality against training compute"
    return finished(figure, folder, name, title, caption, _alt(group, title, caption))


def _two_rows(
    group: Group, looks: Looks, kept: str, draw: Any, axis_label: str, what: str
) -> tuple[Figure, str]:
    """Draw knowledge of the forget set (upper row) and what is kept (lower), a column per rank."""
    columns, knowledge = ranks(group), KNOWLEDGE[group.kind]
    figure, axes = panels(2, len(columns), 1.9, sharex=True, sharey="row")
    used = []
    for column, (rank, arms) in enumerate(columns.items()):
        for row, measure in enumerate((knowledge, kept)):
            for arm, runs in arms.items():
                look = looks.of(arm.method) | variant(arms, arm)
                draw(axes[row, column], runs, measure, look)
                used.append(handle(group.label(arm, place=False), **look))
            _goal_line(axes[row, column], group.runs, measure)
        axes[0, column].set_title(rank)
        axes[1, column].set_xlabel(axis_label)
    axes[0, 0].set_ylabel(label(knowledge))
    axes[1, 0].set_ylabel(label(kept))
    legend(figure, [*used, handle(_goal_name(group), **GREY, linestyle=(0, (2, 2)))])
    return (
        figure,
        f"{label(knowledge)} (upper row) and {label(kept)} (lower row) {what}{_left_out(group)}",
    )


def ranks(group: Group) -> dict[str, dict[Arm, list[Run]]]:
    """Return the arms of one set of layers by rank, for columns of panels."""
    columns: dict[str, dict[Arm, list[Run]]] = {}
    for arm, runs in group.by_rank().items():
        columns.setdefault(f"rank {arm.rank}" if arm.rank else "all weights", {})[arm] = runs
    return dict(list(columns.items())[:MOST_COLUMNS])


def _left_out(group: Group) -> str:
    """Return what of a group such panels leave out, as the end of a caption."""
    drawn = {arm for arms in ranks(group).values() for arm in arms}
    left = [group.label(arm) for arm in group.by_arm() if arm not in drawn]
    return f" Not drawn, see the tables: {'; '.join(left)}." if left else ""


def variant(arms: Any, arm: Arm) -> dict[str, Any]:
    """Return dashes and filling that tell arms of one method in one panel apart."""
    same = [other for other in arms if other.method == arm.method]
    place = same.index(arm)
    styles = ("-", "--", "-.", ":")
    look: dict[str, Any] = {"linestyle": styles[place % 4]} if len(same) > 1 else {}
    return look | ({"markerfacecolor": "white"} if place % 2 else {})


def mean_path(runs: list[Run], measure: str, *, by_epoch: bool = False) -> Points:
    """Return the mean over runs at every update (or epoch) that all of them have."""
    tables = []
    for run in runs:
        epochs = {point.step: point.epoch for point in run.record.curve}
        known = path(run.record, measure)
        tables.append({(epochs[step] if by_epoch else step): v[measure] for step, v in known})
    shared = set.intersection(*(set(table) for table in tables)) if tables else set()
    return [(x, fmean(table[x] for table in tables)) for x in sorted(shared)]


def flops(run: Run) -> tuple[float, float] | None:
    """Return FLOPs before and during training, or None where the record has none."""
    cost = run.record.cost.get("flops")
    if isinstance(cost, dict):
        return cost["fisher"] + cost["low_rank"], cost["training"]
    return (0.0, float(cost)) if cost else None


def _by_flops(run: Run, measure: str, unit: float) -> Points:
    before, training = flops(run) or (0.0, 0.0)
    known = path(run.record, measure)
    last = max(step for step, _ in known) or 1 if known else 1
    return [((before + training * step / last) / unit, v[measure]) for step, v in known]


def _unit(most: float) -> tuple[float, str]:
    for power, prefix in ((18, "exa"), (15, "peta"), (12, "tera"), (9, "giga")):
        if most >= 10**power:
            return 10.0**power, prefix
    return 1.0, ""


def _curve_utility(group: Group, beside: str | None = None) -> str | None:
    """Return the utility that the curves of all runs of a group hold at three points or more."""
    if group.kind not in KNOWLEDGE:
        return None
    for name in UTILITIES[group.kind]:
        lengths = [len(path(run.record, name)) for run in group.runs]
        whole = [len(path(run.record, beside or KNOWLEDGE[group.kind])) for run in group.runs]
        if lengths == whole and max(lengths, default=0) >= 3:
            return name
    return None


def _goal_line(axis: Axes, runs: list[Run], measure: str) -> None:
    known = [value for run in runs if (value := goal(run.record, measure)) is not None]
    if known:
        axis.axhline(fmean(known), **GREY, linestyle=(0, (2, 2)))


def _goal_name(group: Group) -> str:
    return "threshold" if group.kind == "extraction" else "reference"


def _alt(group: Group, title: str, caption: str) -> str:
    arms = "; ".join(group.label(arm) for arm in group.by_arm())
    return f"{title} of {group.headline}. {caption} Methods: {arms}. The tables hold the numbers."


def _xy(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
