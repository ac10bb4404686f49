"""Cells of a report's tables: a mean with its arrow and interval, as text and as plain values."""

from typing import Any

import pandas as pd

from loku_exp.evaluation.catalogue import SAME, Metric
from loku_exp.report.estimates import Estimate
from loku_exp.report.findings import ends_of, original


def estimate_text(metric: Metric, estimate: Estimate | None, arrow: str = "") -> str:
    """Return a mean with an arrow and its interval, where it has one."""
    if estimate is None:
        return ""
    ends = [end for end in (estimate.value, *ends_of(metric, estimate)) if end is not None]
    digits = 1 if metric.form == "count" else None
    text, *interval = [
        metric.written(original(metric, end if digits is None else round(end, digits)))
        for end in ends
    ]
    return f"{text}{arrow}" + (f" [{', '.join(interval)}]" if interval else "")


def texts_of(
    metrics: list[Metric],
    known: dict[str, Estimate | None],
    references: dict[str, Estimate | None] | None = None,
) -> dict[str, str]:
    """Return cells by label, with arrows where there are references to meet."""
    cells = {}
    for metric in metrics:
        mine, other = known.get(metric.name), (references or {}).get(metric.name)
        arrow = ""
        if mine and other and metric.better == "reference":
            gap = other.value - mine.value
            arrow = " =" if abs(gap) < SAME else " ↑" if gap > 0 else " ↓"
        cells[metric.label] = estimate_text(metric, mine, arrow)
    return cells


def columns_of(estimate: Estimate, metric: Metric) -> dict[str, Any]:
    """Return the columns of plain rows that an estimate makes, on the metric's own scale."""
    ends = (estimate.value, *ends_of(metric, estimate))
    values = [None if end is None else original(metric, end) for end in ends]
    return {"metric": metric.name, **dict(zip(("mean", "low", "high"), values, strict=True))} | {
        "n": estimate.n
    }


def filled(cells: pd.DataFrame) -> pd.DataFrame:
    """Return cells without columns in which nothing stands, and without holes."""
    cells = cells.fillna("")
    return cells[[name for name in cells.columns if (cells[name] != "").any()]]
