"""A bench for LLM unlearning with low-rank adapters: LoKU complete, and room for the next method.

From Python: `load_runs` gives a frame of finished runs, `load_run` one of them; `unlearn` and `evaluate`
work on models in memory, see `loku_exp.notebook`.
"""

from typing import TYPE_CHECKING, Any

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

    runs = collect(Path(folder).expanduser()).runs
    return tidy(select(runs, list(filters)) if filters else runs)


def __getattr__(name: str) -> Any:
    """Import what works on models in memory when it is first asked for: it is heavy."""
    names = {
        "unlearn": "unlearn_in_memory",
        "evaluate": "evaluate_in_memory",
        "load_run": "load_run",
    }
    if name in names:
        from loku_exp import notebook

        return getattr(notebook, names[name])
    raise AttributeError(f"module 'loku_exp' has no attribute '{name}'")
