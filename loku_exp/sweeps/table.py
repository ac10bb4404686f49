"""The table at the end of a sweep: one line a run, and the error of each that failed."""

from rich import box
from rich.table import Table

from loku_exp.evaluation.catalogue import Metric
from loku_exp.results import files
from loku_exp.results.schema import Record
from loku_exp.results.terminal import console
from loku_exp.runtime.logs import duration
from loku_exp.sweeps.jobs import Job


def show_sweep(jobs: list[Job]) -> None:
    """Print the table, or a block a run where it would be too wide; then folders and errors."""
    place = console()
    records = [files.read(job.folder) if job.is_done() else None for job in jobs]
    header, cells = header_and_cells(jobs, records)
    runs = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
    folders = dict.fromkeys(str(job.folder.parent) for job in jobs)
    place.print(f"{runs} in {', '.join(folders)}", soft_wrap=True)
    table = _table(header, cells)
    if place.measure(table, options=place.options.update(width=10_000)).maximum <= place.width:
        place.print(table)
    else:
        for row in cells:
            place.print(f"{row[0]}: {row[1]}", soft_wrap=True)
            values = [
                f"{name} {cell}" for name, cell in zip(header[2:], row[2:], strict=True) if cell
            ]
            place.print("\n".join(in_lines(values, place.width)), soft_wrap=True)
    for job, record in zip(jobs, records, strict=True):
        if record is not None:
            place.print(f"{job.label or 'run'}: {job.folder.name}", soft_wrap=True)
    for job in jobs:
        if job.error:
            run_log = job.folder / "run.log"
            see = f" (see {run_log})" if run_log.is_file() else ""
            place.print(f"failed: {job.label}: {job.error}{see}", soft_wrap=True)


def in_lines(values: list[str], width: int) -> list[str]:
    """Return values side by side in lines, none of them broken in two."""
    lines: list[str] = []
    for value in values:
        if lines and len(lines[-1]) + len(" · ") + len(value) <= width:
            lines[-1] += f" · {value}"
        else:
            lines.append(f"  {value}")
    return lines


def header_and_cells(
    jobs: list[Job], records: list[Record | None]
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows; metrics are the unlearned model's, or the target's without unlearning.

    Args:
        jobs: the runs.
        records: of each, None where it is not finished.
    """
    metrics = summary_metrics([record for record in records if record is not None])
    stops = [_stop(record) for record in records]
    epochs = ["epochs to forget"] if any(stops) else []
    header = ["run", "state", *epochs, *(metric.label for metric in metrics), "time"]
    rows = []
    for job, record, stop in zip(jobs, records, stops, strict=True):
        state = job.state
        if record is not None and record.judgement is not None and record.judgement.collapsed:
            state += ", COLLAPSED"
        time = duration(sum(record.cost["seconds"].values())) if record else ""
        values = _values(record)
        shown = [stop] if epochs else []
        shown += [metric.written(values.get(metric.name)) for metric in metrics]
        rows.append([job.label, state, *shown, time])
    return header, rows


def summary_metrics(records: list[Record]) -> list[Metric]:
    """Return the metrics that tables over many runs show, of all these runs, in order."""
    found: dict[str, Metric] = {}
    for record in records:
        values = _values(record)
        for metric in record.catalogue:
            if metric.summary and metric.name in values:
                found.setdefault(metric.name, metric)
    return list(found.values())


def _table(header: list[str], cells: list[list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        words = name.replace(", ", "\n").replace(" ", "\n")
        table.add_column(words, justify="left" if index < 2 else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    return table


def _stop(record: Record | None) -> str:
    """Return how many epochs a stop rule needed; empty where there is none."""
    if record is None or "success" not in record.training:
        return ""
    training = record.training
    return str(training["epochs_to_forget"] if training["success"] else f"> {training['epochs']:g}")


def _values(record: Record | None) -> dict[str, float]:
    if record is None:
        return {}
    return record.models.get("unlearned", record.models["target"]).metrics
