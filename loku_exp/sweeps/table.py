"""The table at the end of a sweep: one line a run, and the error of each that failed."""

from rich.console import Console
from rich.table import Table

from loku_exp.results import files as results
from loku_exp.results import folder as runs
from loku_exp.results.schema import Record
from loku_exp.results.table import labels, number
from loku_exp.runtime.logs import duration
from loku_exp.sweeps.jobs import Job

# Forget quality never stands without what tells a good model from a broken one.
SHOWN = (
    "forget_prob",
    "retain_prob",
    "forget_quality",
    "forget_shift",
    "model_utility",
    "model_utility_retain",
    "forget_el10",
    "forget_ma",
    "sibling_ma",
    "retain_ma",
    "reasoning",
    "dialogue",
)
WIDE = 200  # columns, where the output is no terminal


def show(jobs: list[Job]) -> None:
    """Print the table, where the files are, and the errors."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    records = [results.read(job.folder) if runs.is_done(job.folder) else None for job in jobs]
    header, cells = rows(jobs, records)
    table = Table(title=f"{len(jobs)} runs in {jobs[0].folder.parent}", title_justify="left")
    for index, name in enumerate(header):
        is_text = index in (0, 1, len(header) - 1)
        table.add_column(
            name.replace(", ", "\n"),
            justify="left" if is_text else "right",
            overflow="fold",
            no_wrap=name == "folder",
        )
    for row in cells:
        table.add_row(*row)
    console.print(table)
    for job in jobs:
        if job.error:
            line = f"failed: {job.label}: {job.error} (see {job.folder}/run.log)"
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def rows(jobs: list[Job], records: list[Record | None]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows; metrics are the unlearned model's, or the target's without unlearning.

    Args:
        jobs: the runs.
        records: of each, None where it is not finished.
    """
    metrics = [_metrics(record) for record in records]
    known = labels({name for values in metrics for name in values} & set(SHOWN))
    stops = [_stop(record) for record in records]
    epochs = ["epochs, to forget"] if any(stops) else []
    header = ["run", "state", *epochs, *known.values(), "time", "folder"]
    table = []
    for job, record, values, stop in zip(jobs, records, metrics, stops, strict=True):
        state = job.state
        if record is not None and "COLLAPSED" in str(record.verdict):
            state += ", COLLAPSED"
        time = duration(sum(record.cost["seconds"].values())) if record else ""
        shown = [stop] if epochs else []
        shown += [number(name, values.get(name)) for name in known]
        table.append([job.label, state, *shown, time, job.folder.name])
    return header, table


def _stop(record: Record | None) -> str:
    """Return how many epochs a stop rule needed; empty where there is none."""
    if record is None or "success" not in record.training:
        return ""
    training = record.training
    return str(training["epochs_to_forget"] if training["success"] else f"> {training['epochs']:g}")


def _metrics(record: Record | None) -> dict[str, float]:
    if record is None:
        return {}
    return record.models.get("unlearned", record.models["target"]).metrics
