"""The tables of a report: text for people, and tidy rows for programs; every word is the catalogue's."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd

from loku_exp.evaluation.catalogue import SAME, Metric
from loku_exp.report.cells import columns_of, filled, texts_of
from loku_exp.report.findings import Findings, means_of
from loku_exp.report.frame import BASES
from loku_exp.report.groups import Arm, order_of
from loku_exp.report.units import common_units, unit_of, unit_text

PAPER = 5  # metrics of a table for a paper; all are in the CSV
PRIORITY = ("gap", "test", "knowledge", "utility", "ability", "detail")
MEANS = {  # in the order of the page
    "means_all_runs": "Means over all runs",
    "means_common_successes": "Means over the units on which all compared methods succeed",
    "means_own_successes": "Means of each method over its own successful runs (the paper's way)",
}
OUTCOMES = {"collapsed": "COLLAPSED", True: "succeeded", False: "no success", None: "not judged"}
OWN = (
    "Each row is over other runs: a method that succeeds on easy sets alone looks better here than it is. "
    "Compare methods in the tables above."
)


@dataclass
class Table:
    """A table of one group.

    Attributes:
        name: of the files it goes to, together with other groups' tables of that name.
        title: for people.
        cells: as text; the first column names the row.
        data: plain values, e.g. one row per arm and metric.
        paper: which columns a paper gets; None for all.
        notes: under the table.
        details: per row, a longer text behind its column ``outcome``.
        links: per row, the folder its last column stands for.
    """

    name: str
    title: str
    cells: pd.DataFrame
    data: pd.DataFrame
    paper: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def all_runs(found: Findings) -> Table:
    """Return one row per run, repeats included, with its outcome."""
    group, units = found.group, [unit_of(run) for run in found.group.runs]
    runs = sorted(
        [*group.runs, *group.repeats],
        key=lambda run: (group.arms[run.folder].method, order_of(group.arms[run.folder])),
    )
    rows, data, details = [], [], []
    for run in runs:
        values, judged = run.record.models["unlearned"].metrics, run.record.judgement
        repeat = run in group.repeats
        said = OUTCOMES["collapsed" if run.collapsed else run.success]
        said += " (repeat, not counted)" if repeat else ""
        row = {"method": group.label(group.arms[run.folder]), "outcome": said}
        where = unit_text(unit_of(run), units)
        row |= ({"unit": where} if where else {}) | {"seed": str(run.record.run.seed)}
        row |= {m.label: m.written(values.get(m.name)) for m in found.summary}
        rows.append(row | {"run": run.record.run.id})
        details.append(judged.sentence if judged else "")
        of_run: dict[str, Any] = {"group": group.headline, "arm": row["method"]}
        of_run |= (
            group.arms[run.folder]._asdict()
            | unit_of(run)._asdict()
            | {"seed": run.record.run.seed, "repeat": repeat}
        )
        of_run |= {"success": run.success, "collapsed": run.collapsed}
        of_run |= {"learning_rate": run.config.get("training.learning_rate")}
        tail = {"verdict": details[-1], "run": run.record.run.id, "folder": str(run.folder)}
        data.append(of_run | values | tail)
    cells = filled(pd.DataFrame(rows))
    paper = ["method", "outcome", "seed", *_few(found, cells.columns)]
    notes = ["Order: by method. Outcome: as the suite of these data judges."]
    links = [str(run.folder) for run in runs]
    return Table("runs", "All runs", cells, pd.DataFrame(data), paper, notes, details, links)


def means(found: Findings) -> list[Table]:
    """Return the tables of means: all runs, common successes, own successes."""
    group, arms = found.group, found.group.by_arm()
    tables = [_means(found, "means_all_runs", arms)]
    if any(run.success is None for run in group.runs):
        return tables
    common, notes = _common(arms)
    tables.append(_means(found, "means_common_successes", common, notes))
    own = {arm: [run for run in runs if run.success] for arm, runs in arms.items()}
    tables.append(_means(found, "means_own_successes", own, [OWN]))
    return tables


def further_models(found: Findings) -> Table | None:
    """Return the means of models beside target, unlearned and reference, e.g. attacked ones."""
    frame = found.frame[~found.frame.subject.isin(["unlearned", *BASES])]
    subjects = dict(frame.groupby("subject", sort=False).collapsed.count())  # judged ones are > 0
    arms = [found.group.label(arm) for arm in found.group.by_arm()]
    rows: list[dict[str, Any]] = []
    data: list[dict[str, Any]] = []
    for subject, arm in product(subjects, ["", *arms]):
        own = subjects[subject] > 0  # it was to forget: one of each method, not one for all
        known = {m: found.means.get((arm, subject, m)) for m in found.words}
        if own != bool(arm) or not any(known.values()):
            continue
        rows.append({"model": subject, "method": arm} | texts_of(found.summary, known))
        of_model = {"group": found.group.headline, "model": subject, "arm": arm}
        data += [of_model | columns_of(e, found.words[m]) for m, e in known.items() if e]
    if not rows:
        return None
    cells = filled(pd.DataFrame(rows))
    title = "Further models: after attacks, and other references"
    paper = ["model", "method", *_few(found, cells.columns)]
    return Table("further_models", title, cells, pd.DataFrame(data), paper)


def _means(
    found: Findings, name: str, arms: dict[Arm, list[Any]], notes: Iterable[str] = ()
) -> Table:
    group, rows, data, said = found.group, [], [], list(notes)
    folders = {str(run.folder) for runs in arms.values() for run in runs}
    frame = found.frame[found.frame.folder.isin(folders)]
    estimates = means_of(frame, found.words)
    shown = [m for m in [*found.summary, found.kept] if m]
    references = {m: estimates.get(("", "reference", m)) for m in found.words}
    for arm in [None, *arms]:
        runs = arms[arm] if arm else []
        if arm and not runs:
            continue
        for subject in ["unlearned"] if arm else BASES:
            label = group.label(arm) if arm else ""
            known = {m: estimates.get((label, subject, m)) for m in found.words}
            if not any(known.values()):
                continue
            n = max(estimate.n for estimate in known.values() if estimate)
            row = {"method": label or f"({subject})", "n": str(n), "runs": str(len(runs) or "")}
            row |= texts_of(shown, known, references if arm else None)
            if arm and any(run.collapsed for run in group.runs):
                row["collapsed"] = f"{sum(run.collapsed for run in runs)} of {len(runs)}"
            rows.append(row)
            of_arm = {"group": group.headline, "arm": label or subject}
            of_arm |= arm._asdict() if arm else {}
            data += [
                of_arm | columns_of(e, found.words[m]) | {"runs": len(runs) or len(folders)}
                for m, e in known.items()
                if e
            ]
    cells = filled(pd.DataFrame(rows if folders else []))
    if without := [group.label(arm) for arm, runs in arms.items() if not runs]:
        said.append(f"Without a run to average: {', '.join(without)}.")
    said += _not_in_all(frame[frame.subject == "unlearned"], shown)
    if any(references.values()):
        said.append(
            f"Arrows point from a method's value to the reference's; =: nearer than {SAME}."
        )
    if any(metric.form == "p" for metric in shown):
        said.append("Means of p-values are geometric.")
    said.append("Order: by rank, layers, method.")
    paper = ["method", "n", "collapsed", *_few(found, cells.columns)]
    return Table(name, MEANS[name], cells, pd.DataFrame(data), paper, said)


def _not_in_all(frame: pd.DataFrame, shown: list[Metric]) -> list[str]:
    """Return which means are over fewer runs than their row says: not all of them have the metric."""
    runs = frame.groupby("arm", sort=False).folder.nunique()
    having = frame.groupby(["arm", "metric"], sort=False).folder.nunique()
    few = [
        f"{metric.label} of {arm} ({having.get((arm, metric.name), 0)} of {count})"
        for arm, count in runs.items()
        for metric in shown
        if 0 < having.get((arm, metric.name), 0) < count
    ]
    return [f"Over the runs that have it alone: {', '.join(few)}."] if few else []


def _common(arms: dict[Arm, list[Any]]) -> tuple[dict[Arm, list[Any]], list[str]]:
    """Keep the units on which all methods compared at one rank and set of layers succeed."""
    blocks: dict[tuple[Any, Any], list[Arm]] = {}
    for arm in arms:
        blocks.setdefault((arm.rank, arm.targets), []).append(arm)
    kept: dict[Arm, list[Any]] = {}
    notes = ["Methods are compared at equal rank and layers."]
    for (rank, targets), members in blocks.items():
        if len(members) < 2:  # nothing to compare with
            continue
        where = f"rank {rank}, layers {targets}" if rank else "without an adapter"
        units = common_units([arms[arm] for arm in members], lambda run: bool(run.success))
        ran = {unit_of(run) for arm in members for run in arms[arm]}
        notes.append(
            f"{len(members)} methods at {where}: all succeed on {len(units)} of {len(ran)} units."
        )
        if units:
            for arm in members:
                kept[arm] = [run for run in arms[arm] if unit_of(run) in units]
    return kept, notes


def _few(found: Findings, columns: Iterable[str]) -> list[str]:
    """Return the labels of the metrics that papers want: what it judges by, then the first of each part."""
    wanted = [m for m in (found.gap, found.kept) if m]
    for part in PRIORITY:
        wanted += [m for m in found.summary if m.part == part][:1]
    labels = list(dict.fromkeys(metric.label for metric in wanted if metric.label in set(columns)))
    return labels[:PAPER]
