"""The tables of a report, each for people and as plain rows for programs."""

from dataclasses import dataclass, field
from typing import Any

from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, success_rate
from loku_exp.report.groups import Arm, Group
from loku_exp.report.measures import final, label, number, outcome, shown
from loku_exp.report.units import Unit, unit_of

SUCCESS_MEANS = {
    "extraction": "EL and MA of the forget set came below the thresholds within the allowed epochs",
    "questions": "not distinguishable from the reference (p ≥ .05) and not collapsed",
    "other": "not defined for these data",
}


@dataclass
class Table:
    """A table of one group.

    Attributes:
        name: of the files it goes to, together with other groups' tables of that name.
        title: for people.
        columns: header.
        rows: cells as text.
        notes: under the table.
        data: plain rows, e.g. one per arm and measure.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)


def all_runs(group: Group) -> Table:
    """Return one row per run, repeats included, with its verdict."""
    runs = sorted([*group.runs, *group.repeats], key=lambda run: group.label(_arm(group, run)))
    names = measures_of(group, runs)
    table = Table(
        "runs", "All runs", ["method", "unit", "seed", *map(label, names), "verdict", "run"], []
    )
    for run in runs:
        record, found = run.record, final(run.record)
        repeated = " (repeat, not counted)" if run in group.repeats else ""
        verdict = (record.verdict or "") + repeated
        cells = [number(name, found.get(name)) for name in names]
        arm = _arm(group, run)
        identity = [group.label(arm), unit_text(unit_of(run), group), str(record.run.seed)]
        table.rows.append([*identity, *cells, verdict, record.run.id])
        table.data.append(
            identity_of(group, arm)
            | unit_of(run)._asdict()
            | {"seed": record.run.seed, "repeat": run in group.repeats}
            | {"success": outcome(record).success, "collapsed": outcome(record).collapsed}
            | {"learning_rate": run.config.get("training.learning_rate")}
            | found
            | {"verdict": record.verdict, "run": record.run.id, "folder": str(run.folder)}
        )
    return table


def success(group: Group) -> Table | None:
    """Return success rates with Wilson intervals, or None where success is not defined."""
    columns = ["method", "succeeded", "rate", "95 % (Wilson)", "collapsed runs"]
    table = Table("success", "Success rates", columns, [])
    for arm, runs in group.by_arm().items():
        outcomes = [(unit_of(run), outcome(run.record)) for run in runs]
        rate = success_rate([(unit, o.success) for unit, o in outcomes if o.success is not None])
        if rate is None or rate.low is None or rate.high is None:
            continue
        collapsed = sum(o.collapsed for _, o in outcomes)
        table.rows.append(
            [
                group.label(arm),
                f"{round(rate.value * rate.n)} of {rate.n}",
                f"{rate.value:.2f}",
                f"{rate.low:.2f} to {rate.high:.2f}",
                f"{collapsed} of {len(runs)}",
            ]
        )
        table.data.append(
            identity_of(group, arm) | columns_of(rate) | {"runs": len(runs), "collapsed": collapsed}
        )
    table.notes.append(
        f"Success: {SUCCESS_MEANS[group.kind]}. Counted in units; a unit with several unlearning seeds "
        "counts where all of them succeed."
    )
    return table if table.rows else None


def unit_text(unit: Unit, group: Group) -> str:
    """Return a unit in words: what of it differs within the group."""
    units = [unit_of(run) for run in group.runs]
    names = {"base": "base seed", "reference": "reference seed", "forget_set": "forget set"}
    parts = [
        f"{names[name]} {value}"
        for name, value in unit._asdict().items()
        if len({getattr(other, name) for other in units}) > 1
    ]
    return ", ".join(parts) or "only one"


def measures_of(group: Group, runs: list[Run]) -> list[str]:
    """Return the measures that a table of these runs shows, in order."""
    return shown({name for run in runs for name in final(run.record)}, group.kind)


def _arm(group: Group, run: Run) -> Arm:
    return group.arms[run.folder]


def identity_of(group: Group, arm: Arm) -> dict[str, Any]:
    """Return the columns of plain rows that say which arm of which group."""
    return {"group": group.headline, "arm": group.label(arm)} | arm._asdict()


def columns_of(estimate: Estimate | None) -> dict[str, Any]:
    """Return the columns of plain rows that an estimate makes."""
    if estimate is None:
        return {}
    return {"mean": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
