"""Methods at equal forgetting: what each keeps at the moment its curve reaches a common level."""

from statistics import fmean

import pandas as pd

from loku_exp.evaluation.catalogue import Metric
from loku_exp.report.cells import estimate_text
from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, at_level, mean_over_units
from loku_exp.report.findings import Findings
from loku_exp.report.tables import Table
from loku_exp.report.units import unit_of
from loku_exp.results.schema import Record

LEAST_POINTS = 3  # before, after, and one between: a line through two points says nothing
MOST_KEPT = 4
Path = list[tuple[int, dict[str, float]]]


def matched(found: Findings) -> Table | str:
    """Return utility at matched forgetting, or why there is none.

    The level is a goal of each run (its suite's, else its reference's value), half the way there, and the
    lowest value that every run reaches. A run is read where its curve first crosses the level,
    interpolated linearly between snapshots.
    """
    known = knowledge(found)
    if known is None:
        return "matched forgetting: no metric says what is known of the forget set"
    members = [r for r in found.group.runs if len(curve_of(r.record, known.name)) >= LEAST_POINTS]
    if not members:
        return "matched forgetting: no curves (evaluation.curve=none); run with evaluation.curve=reduced"
    kept = kept_along(found, members, known)[:MOST_KEPT]
    rows, data = [], []
    for title, levels in _levels(members, known.name).items():
        for arm, runs in found.group.by_arm().items():
            mine = [run for run in runs if run in members]
            if not mine:
                continue
            reached = sum(_read(run, known.name, known.name, levels) is not None for run in mine)
            label = found.group.label(arm)
            row = {"level": title, "method": label, "reached": f"{reached} of {len(mine)}"}
            for metric in kept:
                estimate = _mean(mine, known.name, metric, levels)
                row[metric.label] = estimate_text(metric, estimate)
                if estimate:
                    data.append(
                        {"group": found.group.headline, "level": title, "arm": label}
                        | {"metric": metric.name, "mean": estimate.value, "low": estimate.low}
                        | {"high": estimate.high, "n": estimate.n, "reached": reached}
                        | {"runs": len(mine)}
                    )
            rows.append(row)
    notes = [
        f"Level of {known.label}, read where a run's curve first comes down to it, linear between "
        "snapshots. The goal is what each run is to meet: its suite's threshold, else its own reference's "
        "value. Rows with different 'reached' are over different runs."
    ]
    if without := len(found.group.runs) - len(members):
        notes.insert(0, f"Runs without a curve, not in this table: {without}.")
    title = "Utility at matched forgetting"
    return Table("matched_forgetting", title, pd.DataFrame(rows), pd.DataFrame(data), notes=notes)


def knowledge(found: Findings) -> Metric | None:
    """Return what says what is known of the forget set, along the curves of these runs if anything does."""
    known = [metric for metric in found.words.values() if metric.part == "knowledge"]
    along = [m for m in known if any(curve_of(run.record, m.name) for run in found.group.runs)]
    return next(iter([*along, *known]), None)


def kept_along(found: Findings, runs: list[Run], beside: Metric) -> list[Metric]:
    """Return the metrics of what is kept that curves have wherever they have another one, in order."""
    wanted = [m for m in found.words.values() if m.part in ("utility", "ability")]
    wanted.sort(key=lambda metric: metric != found.utility)
    return [
        m
        for m in wanted
        if all(m.name in v for run in runs for _, v in curve_of(run.record, beside.name))
    ]


def curve_of(record: Record, name: str) -> Path:
    """Return (update, metrics) along the curve where a metric is known, in order."""
    points = sorted(record.curve, key=lambda point: point.step)
    return [(point.step, point.metrics) for point in points if name in point.metrics]


def goal(record: Record, name: str) -> float | None:
    """Return the value at which a model counts as forgotten: the suite's goal, or the reference's."""
    if record.judgement and name in record.judgement.goals:
        return record.judgement.goals[name]
    reference = record.models.get(record.models["unlearned"].reference or "reference")
    return reference.metrics.get(name) if reference else None


def goal_name(found: Findings, name: str) -> str:
    """Return what that value is of."""
    judged = [run.record.judgement for run in found.group.runs]
    return "threshold" if any(j and name in j.goals for j in judged) else "reference"


def _levels(runs: list[Run], name: str) -> dict[str, dict[str, float]]:
    """Return levels by title, each by run id."""
    goals = {run.record.run.id: goal(run.record, name) for run in runs}
    starts = {run.record.run.id: curve_of(run.record, name)[0][1][name] for run in runs}
    known = {run: value for run, value in goals.items() if value is not None}
    levels = {}
    if len(known) == len(runs):
        half = {run: fmean((starts[run], value)) for run, value in known.items()}
        levels = {"half way to the goal": half, "the goal": known}
    lowest = max(min(values[name] for _, values in curve_of(run.record, name)) for run in runs)
    below = min(starts.values()) < lowest
    title = f"{lowest:.3f}, {'below which some begin' if below else 'which all runs reach'}"
    return levels | {title: dict.fromkeys(goals, lowest)}


def _read(run: Run, known: str, kept: str, levels: dict[str, float]) -> float | None:
    points = [(v[known], v[kept]) for _, v in curve_of(run.record, known)]
    return at_level(points, levels[run.record.run.id])


def _mean(runs: list[Run], known: str, metric: Metric, levels: dict[str, float]) -> Estimate | None:
    read = [(unit_of(run), _read(run, known, metric.name, levels)) for run in runs]
    return mean_over_units([(unit, metric.scaled(v)) for unit, v in read if v is not None])
