"""A bench for LLM unlearning with low-rank adapters: LoKU complete, and room for the next method."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

__version__ = "0.1.0"


def load_runs(folder: "str | Path", *filters: str) -> "DataFrame":
    """Return the finished runs under a folder as one tidy frame, a row for each run, model and metric.

    Args:
        folder: holds run folders, at any depth, or is one.
        filters: ``key=value[,value]``, as `python -m loku_exp.report` has them.

    Returns:
        Columns: see `loku_exp.report.frame.tidy`; e.g.
        ``frame[frame.subject == "unlearned"].pivot_table("value", ["loss", "init"], "metric")``.

    Raises:
        UserError: there is no finished run, or none that a filter lets through.
    """
    from pathlib import Path

    from loku_exp.report.collect import collect, select
    from loku_exp.report.frame import tidy

    runs = collect(Path(folder)).runs
    return tidy(select(runs, list(filters)) if filters else runs)
