"""The first thing a report says: which method forgets best, at what cost of utility."""

from typing import Any

import pandas as pd

from loku_exp.evaluation.catalogue import Metric
from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, mean_over_units, pareto_front, success_rate
from loku_exp.report.findings import Findings, original
from loku_exp.report.frame import ABOVE
from loku_exp.report.groups import Arm
from loku_exp.report.tables import Table
from loku_exp.report.units import Unit, shared_units, unit_of, unit_text

MOST_ROWS = 8
ORDER = (
    "Order: by success, then nearness to the goal of forgetting, then what is kept; collapsed ones last. "
    "Interval of the rate: 95 %, Wilson, over units; a unit counts where all its unlearning seeds succeed."
)
EXCESS = "The {gap}: of the metrics that have a threshold, how far the farthest is above its own."
COMPARED = (
    "Compared over the {units} that all of the first {arms} methods ran on{where}. Those behind them ran "
    "on others: their numbers are over these, and no order holds between them and the first."
)


def answer(found: Findings) -> str:
    """Return two or three sentences: the closest to the goal, what it costs, and who keeps the most."""
    group, core = found.group, core_of(found)
    arms = core.group.by_arm()
    sound, broken_too = ([a for a in ranked(core) if _broken(arms[a]) == k] for k in (0, 1))
    order = sound or broken_too
    if not order:
        return f"Every run of all {len(arms)} methods collapsed: none forgets without breaking the model."
    if found.gap is None:
        return "These runs share no measure of forgetting; see the tables."
    best = order[0]
    keeping = f", keeping {_kept(core, best)}" if found.kept else ""
    parts = [f"{_strong(core, best)} {_how(core, best)}{keeping}."]
    keeper = max(order, key=lambda arm: _value(core, found.kept, arm))
    if keeper != best and _value(core, found.kept, keeper) > _value(core, found.kept, best):
        parts.append(
            f"{_strong(core, keeper)} keeps the most, {_kept(core, keeper)}, and {_how(core, keeper)}."
        )
    others = len(group.by_arm()) - len(arms)
    if len(arms) < 2:
        where = "ran on its units" if others else "is here"
        parts.append(f"No other method {where}: nothing is compared.")
    elif len(order) < 2:
        parts.append("No other method here is sound: nothing is compared.")
    else:
        parts.append(_certainty(core, order[0], order[1]))
    if broken := sum(run.collapsed for run in group.runs):
        parts.append(f"{broken} of {len(group.runs)} runs collapsed.")
    if others:
        parts.append(f"Methods that ran on other units, and are not compared here: {others}.")
    return " ".join(parts)


def core_of(found: Findings) -> Findings:
    """Return what the arms say that can be compared: over units that all of them ran on.

    A mean over an easy base beside one over a hard base is no comparison. Of the sets of units that arms
    ran on, the one with the most evidence is taken, arms times units, of two units or more if two arms
    share them; arms that lack one of these are left out.
    """
    arms = found.group.by_arm()
    ran = {arm: shared_units([runs]) for arm, runs in arms.items()}

    def evidence(units: set[Unit]) -> tuple[bool, int, int]:
        having = sum(units <= mine for mine in ran.values())
        return having > 1 and len(units) > 1, having * len(units), len(units)

    candidates = [*ran.values(), shared_units(arms.values())]
    best = max(candidates, key=evidence)
    return found.over([arm for arm, mine in ran.items() if best <= mine], best)


def ordered(found: Findings) -> Table:
    """Return the arms from the best to the worst, with what must stand beside a test's p-value."""
    group, core = found.group, core_of(found)
    rest = found.over(set(group.by_arm()) - set(core.group.by_arm()))
    front = front_of(core)
    rows: list[dict[str, Any]] = []
    data: list[dict[str, Any]] = []
    for part, arm in [(those, arm) for those in (core, rest) for arm in ranked(those)]:
        runs = part.group.by_arm()[arm]
        rate = rate_of(runs)
        collapsed, n = sum(run.collapsed for run in runs), len({unit_of(run) for run in runs})
        row = {"method": group.label(arm), "success": _rate_text(rate), "n": str(n)}
        plain: dict[str, Any] = {"group": group.headline, "arm": row["method"]} | arm._asdict()
        for metric, name in ((found.gap, "gap"), (found.kept, "kept")):
            if metric:
                mean = part.mean(metric, arm)
                row[metric.label] = metric.written(mean.value if mean else None)
                plain |= {name: metric.name, f"{name}_mean": mean.value if mean else None}
        row["on the front"] = "yes" if arm in front else ""
        row["collapsed"] = f"{collapsed} of {len(runs)}" if collapsed else ""
        rows.append(row)
        plain |= {
            "success": rate.value if rate else None,
            "success_low": rate.low if rate else None,
        }
        plain |= {"success_high": rate.high if rate else None, "on_front": arm in front}
        data.append(plain | {"n": n, "runs": len(runs), "collapsed": collapsed})
    notes = [ORDER, "On the front: no other method is better in forgetting and in what is kept."]
    notes += [EXCESS.format(gap=ABOVE.label)] if found.gap and found.gap.name == ABOVE.name else []
    if rest.group.runs:
        notes.append(_compared(found, core))
    if len(rows) > MOST_ROWS:
        notes.append(f"The first {MOST_ROWS} of {len(rows)}; all are in the tables of means.")
    cells = pd.DataFrame(rows[:MOST_ROWS])
    cells = cells[[name for name in cells.columns if (cells[name] != "").any()]]
    judged = [metric.label for metric in (found.gap, found.kept) if metric]
    paper = ["method", "success", *judged, "collapsed", "on the front"]
    return Table("summary", "Methods, best first", cells, pd.DataFrame(data), paper, notes)


def ranked(found: Findings) -> list[Arm]:
    """Return arms by success, nearness to the goal, what is kept; those with a collapse come last."""
    arms = found.group.by_arm()

    def place(arm: Arm) -> tuple[float, ...]:
        rate = rate_of(arms[arm])
        gap = found.mean(found.gap, arm)
        distance = gap.value if gap else float("inf")
        kept = _value(found, found.kept, arm)
        return (_broken(arms[arm]), -rate.value if rate else 0.0, distance, -kept)

    return sorted(arms, key=place)


def front_of(found: Findings) -> list[Arm]:
    """Return the arms that no other one beats in forgetting and utility, none with a run that collapsed."""
    points = {}
    for arm, runs in found.group.by_arm().items():
        gap, kept = found.mean(found.gap, arm), found.mean(found.kept, arm)
        if gap and kept and not _broken(runs):
            points[arm] = (gap.value, kept.value)
    return [list(points)[index] for index in pareto_front(list(points.values()))]


def rate_of(runs: list[Run]) -> Estimate | None:
    """Return the share of units that succeed, or None where success cannot be said of any."""
    return success_rate([(unit_of(run), run.success) for run in runs if run.success is not None])


def _compared(found: Findings, core: Findings) -> str:
    """Return over what the first rows of the table are compared, and that the others are not."""
    units, every = ({unit_of(run) for run in part.group.runs} for part in (core, found))
    where = "; ".join(sorted(filter(None, (unit_text(unit, every) for unit in units))))
    count = "unit" if len(units) == 1 else f"{len(units)} units"
    arms = len(core.group.by_arm())
    return COMPARED.format(units=count, arms=arms, where=f" ({where})" if where else "")


def _how(found: Findings, arm: Arm) -> str:
    """Return how near a method comes to the goal, in words, with the test's p where there is one."""
    gap, parts = found.gap, []
    near, rate = found.mean(gap, arm), rate_of(found.group.by_arm()[arm])
    if rate:
        parts.append(
            f"succeeds on {round(rate.value * rate.n)} of {rate.n} unit{'s' * (rate.n > 1)}"
        )
    if gap and near:
        said = [m for m in found.summary if m.part == "test" or m.form in ("signed", "count")]
        means = {m: found.mean(m, arm) for m in said if m != gap}
        beside = [f"{m.label} {_text(m, mean)}" for m, mean in means.items() if mean]
        rows = found.group.runs[0].record.protocol.get("rows", {}).get("forget")
        beside += [f"{rows} rows"] if rows else []
        before = found.mean(gap, None, "target")
        beside = [f"target {gap.written(before.value)}", *beside] if before else beside
        more = f" ({', '.join(beside)})" if beside else ""
        parts.append(f"ends with {gap.label} {gap.written(near.value)}{more}")
    return " and ".join(parts)


def _text(metric: Metric, estimate: Estimate) -> str:
    value = round(estimate.value, 1) if metric.form == "count" else estimate.value
    return metric.written(original(metric, value))


def _kept(found: Findings, arm: Arm) -> str:
    what = found.utility.label if found.utility else "utility"
    return f'{100 * _value(found, found.kept, arm):.0f} % of what the target has of "{what}"'


def _certainty(found: Findings, first: Arm, second: Arm) -> str:
    """Return whether the best two differ in what orders them, in pairs over the units both ran on."""
    runs = found.frame[found.frame.subject == "unlearned"]
    wanted = {"success": runs.drop_duplicates("folder").assign(value=runs.success)}
    wanted |= {m.label: runs[runs.metric == m.name] for m in (found.gap, found.kept) if m}
    labels = [found.group.label(arm) for arm in (first, second)]
    known = [(what, pair) for what, part in wanted.items() if (pair := _paired(part, *labels))]
    if not known:
        return f"{labels[0]} and {labels[1]} ran on no common unit: their order is not established."
    what, difference = next((pair for pair in known if pair[1].value), known[-1])
    if difference.low is None or difference.high is None:
        return f"{labels[0]} and {labels[1]} share one unit only (n = 1): the order is not established."
    apart = difference.low > 0 or difference.high < 0
    if difference.low == difference.high:
        said = "alike in each of them, so there is no interval"
    else:
        said = f"the 95 % interval {'excludes 0' if apart else 'holds 0: not established'}"
    more = "more" if difference.value > 0 else "less"
    return (
        f"{labels[0]} has {abs(difference.value):.2g} {more} of {what} than {labels[1]}, paired over "
        f"{difference.n} units; {said}."
    )


def _paired(runs: pd.DataFrame, first: str, second: str) -> Estimate | None:
    """Return the mean difference of a value of two arms over the units that both have."""
    values = runs.assign(value=runs.value.astype(float))
    means = values.pivot_table("value", "unit", "arm").reindex(columns=[first, second]).dropna()
    return mean_over_units(list((means[first] - means[second]).items()))


def _value(found: Findings, metric: Metric | None, arm: Arm) -> float:
    estimate = found.mean(metric, arm)
    return estimate.value if estimate else 0.0


def _rate_text(rate: Estimate | None) -> str:
    if rate is None:
        return ""
    text = f"{round(rate.value * rate.n)} of {rate.n}"
    return text if rate.low is None else f"{text} [{rate.low:.2f}, {rate.high:.2f}]"


def _broken(runs: list[Run]) -> int:
    """Return 0 where no run collapsed, 1 where some did, 2 where all did."""
    collapsed = [run.collapsed for run in runs]
    return any(collapsed) + all(collapsed)


def _strong(found: Findings, arm: Arm) -> str:
    return f"**{found.group.label(arm)}**"
