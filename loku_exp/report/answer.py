"""The first thing a report says: which method forgets best, at what cost of utility."""

from statistics import fmean

from loku_exp.report.collect import Run
from loku_exp.report.ends import front_of, front_points
from loku_exp.report.estimates import Estimate, mean_over_units, success_rate
from loku_exp.report.groups import Arm, Group
from loku_exp.report.means import mean_of, over_units, share_kept
from loku_exp.report.measures import final, label, number, outcome
from loku_exp.report.tables import Table, identity_of
from loku_exp.report.units import Unit, unit_of

MOST_ROWS = 8


def answer(group: Group) -> str:
    """Return two or three sentences: the closest to the goal, what it costs, and who keeps the most."""
    arms = group.by_arm()
    sound = {arm: runs for arm, runs in arms.items() if not _all_collapsed(runs)}
    if not sound:
        return f"Every run of all {len(arms)} methods collapsed: none forgets without breaking the model."
    if group.forgetting is None or group.utility is None:
        return "These runs share no measure of forgetting and utility; see the tables."
    order = ranked(group, sound)
    best = order[0]
    parts = [
        f"{_strong(group, best)} {_how(group, sound[best])}, keeping {_kept(group, sound[best])}."
    ]
    keeper = max(sound, key=lambda arm: _share(group, sound[arm]) or 0.0)
    if keeper != best:
        parts.append(
            f"{_strong(group, keeper)} keeps the most, {_kept(group, sound[keeper])}, and "
            f"{_how(group, sound[keeper])}."
        )
    broken = sum(outcome(run.record).collapsed for run in group.runs)
    if (
        group.kind == "extraction"
        and all(_rate(runs) == 1 for runs in arms.values())
        and len(arms) > 1
    ):
        parts.append(
            f"All {len(arms)} methods succeed on every unit; they are ordered by what they keep."
        )
    if broken:
        parts.append(f"{broken} of {len(group.runs)} runs collapsed.")
    if len(order) < 2:
        parts.append("No other method here is sound: nothing is compared.")
    else:
        parts.append(_certainty(group, order))
    return " ".join(parts)


def summary(group: Group) -> Table:
    """Return the arms from the best to the worst, with what must stand beside forget quality."""
    arms = group.by_arm()
    points = front_points(group)
    front = front_of(group)
    gap = label(group.forgetting) if group.forgetting else "gap"
    kept = f"{label(group.utility)} kept" if group.utility else "utility kept"
    table = Table(
        "summary",
        "Methods, best first",
        ["method", "success", gap, kept, "n", "on the front", ""],
        [],
    )
    order = ranked(group, arms) if points else list(arms)
    for arm in order:
        runs = arms[arm]
        collapsed = sum(outcome(run.record).collapsed for run in runs)
        rate = _success(runs)
        table.rows.append(
            [
                group.label(arm),
                f"{round(rate.value * rate.n)} of {rate.n}" if rate else "",
                number(group.forgetting, points[arm][0])
                if arm in points and group.forgetting
                else "",
                _percent(_share(group, runs)),
                str(len({unit_of(run) for run in runs})),
                "●" if arm in front else "",
                f"COLLAPSED {collapsed} of {len(runs)}" if collapsed else "",
            ]
        )
        table.data.append(
            identity_of(group, arm)
            | {"success": rate.value if rate else None, "gap": group.forgetting}
            | {"gap_mean": points[arm][0] if arm in points else None, "utility": group.utility}
            | {"utility_kept": _share(group, runs), "n": len({unit_of(run) for run in runs})}
            | {"on_front": arm in front, "collapsed": collapsed, "runs": len(runs)}
        )
    if len(order) > MOST_ROWS:
        table.rows = table.rows[:MOST_ROWS]
        table.notes.append(
            f"The first {MOST_ROWS} of {len(order)}; all are in the tables of means."
        )
    return table


def ranked(group: Group, arms: dict[Arm, list[Run]]) -> list[Arm]:
    """Return arms from the closest to the goal to the farthest; those that all collapsed come last.

    Extraction: by success rate, then utility kept (below the thresholds less is not better). Questions:
    by the gap to the reference, then utility kept.
    """

    def place(arm: Arm) -> tuple[float, float, float]:
        runs = arms[arm]
        rate, share = _success(runs), _share(group, runs) or 0.0
        gap = mean_of(runs, group.forgetting) if group.forgetting else None
        distance = gap.value if gap else float("inf")
        if group.kind == "extraction" and rate:
            return (_all_collapsed(runs), -rate.value, -share)
        return (_all_collapsed(runs), distance, -share)

    return sorted(arms, key=place)


def _how(group: Group, runs: list[Run]) -> str:
    """Return how near a method comes to the goal, in words."""
    gap = mean_of(runs, group.forgetting) if group.forgetting else None
    rate = _success(runs)
    if group.kind == "extraction" and rate:
        text = f"succeeds on {round(rate.value * rate.n)} of {rate.n} unit{'s' * (rate.n > 1)}"
        epochs = mean_of(runs, "epochs_to_forget")
        return text + (f" after {epochs.value:.0f} epochs" if epochs else "")
    value = number(group.forgetting, gap.value) if gap and group.forgetting else "?"
    if group.forgetting == "forget_ks":
        rows = runs[0].record.protocol.get("rows", {}).get("forget")
        quality = mean_of(runs, "log10_forget_quality")
        p = f", p {10**quality.value:.2g}" if quality else ""
        shift = mean_of(runs, "forget_shift")
        side = "" if not shift else ", under-forgotten" if shift.value > 0 else ", over-forgotten"
        return f"ends at KS distance {value} from the reference ({rows} rows{p}{side})"
    return f"ends at {label(str(group.forgetting))} {value}"


def _kept(group: Group, runs: list[Run]) -> str:
    share = _percent(_share(group, runs)) or "an unknown share"
    return f"{share} of the target's {label(str(group.utility))}"


def _certainty(group: Group, order: list[Arm]) -> str:
    """Return whether the best two differ, in pairs over the units that both ran on."""
    first, second = (group.by_arm()[arm] for arm in order[:2])
    by_success = group.kind == "extraction" and _rate(first) != _rate(second)
    difference = _paired(group, first, second, by_success=by_success)
    what = "success" if by_success else _judged_by(group)
    if difference is None:
        return "The first two ran on no common unit: their order is not established."
    if difference.low is None or difference.high is None:
        return "They share one unit only (n = 1): the order is not established."
    apart = difference.low > 0 or difference.high < 0
    return (
        f"The first two differ in {what} by {abs(difference.value):.2g}, paired over {difference.n} units; "
        + (
            "the 95 % interval excludes 0."
            if apart
            else "the 95 % interval holds 0: not established."
        )
    )


def _judged_by(group: Group) -> str:
    """Return the measure that orders methods which success does not."""
    return "share of utility kept" if group.kind == "extraction" else label(str(group.forgetting))


def _paired(
    group: Group, first: list[Run], second: list[Run], *, by_success: bool
) -> Estimate | None:
    """Return the mean difference over the units that both have."""

    def read(run: Run) -> float | None:
        if by_success:
            return float(bool(outcome(run.record).success))
        if group.kind == "extraction":
            return share_kept(run, group.utility)
        return final(run.record).get(str(group.forgetting))

    means = []
    for runs in (first, second):
        by_unit: dict[Unit, list[float]] = {}
        for run in runs:
            if (value := read(run)) is not None:
                by_unit.setdefault(unit_of(run), []).append(value)
        means.append({unit: fmean(found) for unit, found in by_unit.items()})
    shared = means[0].keys() & means[1].keys()
    return mean_over_units([(unit, means[0][unit] - means[1][unit]) for unit in shared])


def _rate(runs: list[Run]) -> float | None:
    rate = _success(runs)
    return rate.value if rate else None


def _success(runs: list[Run]) -> Estimate | None:
    known = [(unit_of(run), outcome(run.record).success) for run in runs]
    return success_rate([(unit, success) for unit, success in known if success is not None])


def _share(group: Group, runs: list[Run]) -> float | None:
    estimate = over_units(runs, lambda run: share_kept(run, group.utility))
    return estimate.value if estimate else None


def _all_collapsed(runs: list[Run]) -> bool:
    return all(outcome(run.record).collapsed for run in runs)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _strong(group: Group, arm: Arm) -> str:
    return f"**{group.label(arm)}**"
