"""The tables of a report, each for people and as plain rows for programs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, mean_over_units, success_rate
from loku_exp.report.groups import Arm, Group
from loku_exp.report.measures import final, label, number, outcome, shown
from loku_exp.report.units import Unit, common_units, unit_of

NO_ARROW = {"log10_forget_quality", "forget_ks", "forget_shift", "epochs_to_forget"}
SAME = 0.005  # smaller distances to the reference get no arrow, as in a run's own table
MEANS = {  # in the order of the page
    "means_all_runs": "Means over all runs",
    "means_common_successes": "Means over the units on which all compared methods succeed",
    "means_own_successes": "Means of each method over its own successful runs (the paper's way)",
}
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
    names = _measures(group, runs)
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


def means(group: Group) -> list[Table]:
    """Return the tables of means: all runs, common successes, own successes."""
    arms = group.by_arm()
    tables = [_means(group, "means_all_runs", arms)]
    judged = [run for run in group.runs if outcome(run.record).success is not None]
    if len(judged) < len(group.runs):
        return tables
    common, notes = _common(group, arms)
    tables.append(_means(group, "means_common_successes", common))
    tables[-1].notes += notes
    own = {arm: [run for run in runs if _succeeded(run)] for arm, runs in arms.items()}
    tables.append(_means(group, "means_own_successes", own))
    tables[-1].notes.append(
        "Each row is over other runs: a method that succeeds on easy sets alone looks better here than it "
        "is. Compare methods in the tables above."
    )
    return tables


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


def share_kept(run: Run, utility: str | None) -> float | None:
    """Return utility after unlearning as a share of the target's."""
    if utility is None:
        return None
    before, after = final(run.record, "target").get(utility), final(run.record).get(utility)
    return after / before if before and after is not None else None


def over_units(runs: Iterable[Run], measure: Callable[[Run], float | None]) -> Estimate | None:
    """Return the mean of a measure over the units of runs that have it."""
    found = [(unit_of(run), measure(run)) for run in runs]
    return mean_over_units([(unit, value) for unit, value in found if value is not None])


def mean_of(runs: Iterable[Run], name: str, role: str = "unlearned") -> Estimate | None:
    """Return the mean of a measure of the final table over units."""
    return over_units(runs, lambda run: final(run.record, role).get(name))


def estimate_text(name: str, estimate: Estimate | None) -> str:
    """Return a mean with its interval, where it has one."""
    if estimate is None:
        return ""
    text = number(name, estimate.value)
    if estimate.low is None:
        return text
    return f"{text} [{number(name, estimate.low)}, {number(name, estimate.high)}]"


def _means(group: Group, name: str, arms: dict[Arm, list[Run]]) -> Table:
    runs = [run for members in arms.values() for run in members]
    names = _measures(group, runs)
    header = ["method", "n", "runs", *map(label, names)]
    kept = f"{label(group.utility)} kept" if group.utility else ""
    table = Table(name, MEANS[name], [*header, *([kept] if kept else []), "collapsed"], [])
    references = {m: mean_of(runs, m, "reference") for m in names}
    for role in ("target", "reference"):
        found = {m: mean_of(runs, m, role) for m in names}
        if any(found.values()):
            n = max(estimate.n for estimate in found.values() if estimate)
            cells = [estimate_text(m, found[m]) for m in names]
            table.rows.append([f"({role})", str(n), "", *cells, *([""] if kept else []), ""])
            table.data += [
                {"group": group.headline, "arm": role, "metric": m} | columns_of(found[m])
                for m in names
                if found[m]
            ]
    for arm, members in arms.items():
        if not members:
            table.notes.append(f"{group.label(arm)}: no run to average.")
            continue
        estimates = {m: mean_of(members, m) for m in names}
        cells = [estimate_text(m, estimates[m]) + _arrow(m, estimates, references) for m in names]
        if group.utility:
            estimates["utility_kept"] = over_units(members, lambda r: share_kept(r, group.utility))
            cells.append(estimate_text("utility_kept", estimates["utility_kept"]))
        collapsed = sum(outcome(run.record).collapsed for run in members)
        n = len({unit_of(run) for run in members})
        row = [group.label(arm), str(n), str(len(members)), *cells]
        table.rows.append([*row, f"{collapsed} of {len(members)}"])
        table.data += [
            identity_of(group, arm) | {"metric": m} | columns_of(found) | {"runs": len(members)}
            for m, found in estimates.items()
            if found
        ]
    table.notes += _threshold_notes(runs)
    if not any(arms.values()):
        table.rows = []
    elif any(references.values()):
        table.notes.append("Arrows point from a method's value to the reference's.")
    return table


def _threshold_notes(runs: list[Run]) -> list[str]:
    """Return what EL and MA had to come below, where a stop rule says so."""
    limits = [
        run.record.training["thresholds"] for run in runs if "thresholds" in run.record.training
    ]
    if not limits:
        return []
    n = limits[0]["n"]
    ranges = {
        name: sorted({round(limit[key], 4) for limit in limits})
        for name, key in ((f"EL_{n}", "el"), ("MA", "ma"))
    }
    texts = [
        f"{name} < {known[0]:.4f}" + (f" to {known[-1]:.4f}" if len(known) > 1 else "")
        for name, known in ranges.items()
    ]
    return [f"Forgotten means {' and '.join(texts)}."]


def _common(group: Group, arms: dict[Arm, list[Run]]) -> tuple[dict[Arm, list[Run]], list[str]]:
    """Keep the units on which all methods compared at one rank and set of layers succeed."""
    blocks: dict[tuple[Any, Any], list[Arm]] = {}
    for arm in arms:
        blocks.setdefault((arm.rank, arm.targets), []).append(arm)
    kept: dict[Arm, list[Run]] = {}
    notes = ["Methods are compared at equal rank and layers."]
    for (rank, targets), members in blocks.items():
        where = f"rank {rank}, {targets}" if rank else "all weights trained"
        units = common_units([arms[arm] for arm in members], _succeeded)
        ran = {unit_of(run) for arm in members for run in arms[arm]}
        notes.append(f"{where}: {len(units)} of {len(ran)} units, {len(members)} methods.")
        if units:
            for arm in members:
                kept[arm] = [run for run in arms[arm] if unit_of(run) in units]
    return kept, notes


def _succeeded(run: Run) -> bool:
    return bool(outcome(run.record).success)


def _measures(group: Group, runs: list[Run]) -> list[str]:
    return shown({name for run in runs for name in final(run.record)}, group.kind)


def _arm(group: Group, run: Run) -> Arm:
    return group.arms[run.folder]


def _arrow(name: str, ours: dict[str, Estimate | None], theirs: dict[str, Estimate | None]) -> str:
    mine, other = ours.get(name), theirs.get(name)
    if name in NO_ARROW or mine is None or other is None:
        return ""
    gap = other.value - mine.value
    return " =" if abs(gap) < SAME else " ↑" if gap > 0 else " ↓"


def identity_of(group: Group, arm: Arm) -> dict[str, Any]:
    """Return the columns of plain rows that say which arm of which group."""
    return {"group": group.headline, "arm": group.label(arm)} | arm._asdict()


def columns_of(estimate: Estimate | None) -> dict[str, Any]:
    """Return the columns of plain rows that an estimate makes."""
    if estimate is None:
        return {}
    return {"mean": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
