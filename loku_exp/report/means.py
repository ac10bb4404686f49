"""The tables of means: over all runs, over common successes, over each method's own."""

from collections.abc import Callable, Iterable
from typing import Any

from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, mean_over_units
from loku_exp.report.groups import Arm, Group
from loku_exp.report.measures import final, label, number, outcome
from loku_exp.report.tables import Table, columns_of, identity_of, measures_of
from loku_exp.report.units import common_units, unit_of

NO_ARROW = {"log10_forget_quality", "forget_ks", "forget_shift", "epochs_to_forget"}
SAME = 0.005  # smaller distances to the reference get no arrow, as in a run's own table
MEANS = {  # in the order of the page
    "means_all_runs": "Means over all runs",
    "means_common_successes": "Means over the units on which all compared methods succeed",
    "means_own_successes": "Means of each method over its own successful runs (the paper's way)",
}


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
    names = measures_of(group, runs)
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


def _arrow(name: str, ours: dict[str, Estimate | None], theirs: dict[str, Estimate | None]) -> str:
    mine, other = ours.get(name), theirs.get(name)
    if name in NO_ARROW or mine is None or other is None:
        return ""
    gap = other.value - mine.value
    return " =" if abs(gap) < SAME else " ↑" if gap > 0 else " ↓"
