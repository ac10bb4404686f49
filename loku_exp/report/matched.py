"""Methods at equal forgetting: what each keeps at the moment its curve reaches a common level."""

from functools import partial

from loku_exp.report.collect import Run
from loku_exp.report.estimates import at_level
from loku_exp.report.groups import Group
from loku_exp.report.means import estimate_text, over_units
from loku_exp.report.measures import UTILITIES, final, label, values
from loku_exp.report.tables import Table, columns_of, identity_of
from loku_exp.results.schema import Record

KNOWLEDGE = {"questions": "forget_prob", "extraction": "forget_ma"}
BESIDE = {"questions": ("authors_prob", "facts_prob"), "extraction": ()}
LEAST_POINTS = 3  # before, after, and one between: a line through two points says nothing


def matched(group: Group) -> Table | str:
    """Return utility at matched forgetting, or why there is none.

    The level is a goal of each run (its reference's value; for extraction its MA threshold), half the way
    there, and the lowest value that every run reaches. A run is read where its curve first crosses the
    level, interpolated linearly between snapshots.
    """
    knowledge = KNOWLEDGE.get(group.kind)
    if knowledge is None:
        return "matched forgetting: these data have no measure of it"
    with_curve = [run for run in group.runs if len(path(run.record, knowledge)) >= LEAST_POINTS]
    if not with_curve:
        return "matched forgetting: no curves (evaluation.curve=none); run with evaluation.curve=reduced"
    wanted = (*UTILITIES[group.kind], *BESIDE[group.kind])
    names = [
        name for name in wanted if all(_measured(run.record, knowledge, name) for run in with_curve)
    ]
    columns = ["level", "method", "reached", *map(label, names)]
    table = Table("matched_forgetting", "Utility at matched forgetting", columns, [])
    for title, levels in _levels(with_curve, knowledge).items():
        for arm, runs in group.by_arm().items():
            members = [run for run in runs if run in with_curve]
            if not members:
                continue
            found = {
                name: over_units(members, partial(_read, knowledge, name, levels)) for name in names
            }
            reached = sum(_read(knowledge, knowledge, levels, run) is not None for run in members)
            cells = [estimate_text(name, found[name]) for name in names]
            table.rows.append([title, group.label(arm), f"{reached} of {len(members)}", *cells])
            table.data += [
                identity_of(group, arm)
                | {"level": title, "metric": name, "reached": reached, "runs": len(members)}
                | columns_of(estimate)
                for name, estimate in found.items()
                if estimate
            ]
    without = len(group.runs) - len(with_curve)
    if without:
        table.notes.append(f"{without} runs have no curve and are not in this table.")
    table.notes.append(
        f"Level of {label(knowledge)}, read where a run's curve first comes down to it, linear between "
        "snapshots. Rows with different 'reached' are over different runs."
    )
    return table


def path(record: Record, name: str) -> list[tuple[int, dict[str, float]]]:
    """Return (update, values) along the curve where a measure is known, in order."""
    points = sorted(record.curve, key=lambda point: point.step)
    found = [(point.step, values(record, point.metrics)) for point in points]
    return [(step, known) for step, known in found if name in known]


def goal(record: Record, knowledge: str) -> float | None:
    """Return the value of a measure at which the forget set counts as forgotten."""
    if knowledge == "forget_ma" and "thresholds" in record.training:
        return float(record.training["thresholds"]["ma"])
    return final(record, "reference").get(knowledge)


def _levels(runs: list[Run], knowledge: str) -> dict[str, dict[str, float]]:
    """Return levels by name, each by run id."""
    goals = {run.record.run.id: goal(run.record, knowledge) for run in runs}
    starts = {run.record.run.id: final(run.record, "target")[knowledge] for run in runs}
    known = {run: value for run, value in goals.items() if value is not None}
    levels = {}
    if len(known) == len(runs):
        what = "threshold" if knowledge == "forget_ma" else "reference"
        half = {run: (starts[run] + value) / 2 for run, value in known.items()}
        levels = {f"half way to the {what}": half, f"the {what}": known}
    lowest = max(min(v[knowledge] for _, v in path(run.record, knowledge)) for run in runs)
    return levels | {f"{lowest:.3f}, which all runs reach": dict.fromkeys(goals, lowest)}


def _measured(record: Record, knowledge: str, name: str) -> bool:
    return all(name in known for _, known in path(record, knowledge))


def _read(knowledge: str, name: str, levels: dict[str, float], run: Run) -> float | None:
    points = [(v[knowledge], v[name]) for _, v in path(run.record, knowledge)]
    return at_level(points, levels[run.record.run.id])
