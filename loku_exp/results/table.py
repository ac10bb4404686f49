"""The result table of a run, for terminal and Markdown; its words are the record's own catalogue."""

from typing import Literal

from loku_exp.evaluation.catalogue import Metric
from loku_exp.results.schema import Record

Arrows = Literal["distance", "side", "none"]
FOREIGN = "published_log"  # weights of a model that was evaluated elsewhere


def header_and_rows(
    record: Record, names: list[str] | None = None, arrows: Arrows = "distance"
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows, a column for each model.

    Args:
        record: of a run.
        names: of models; None for all of them.
        arrows: behind the value of a model that is compared with another one: which way to that one's
            value, and how far (``distance``), the way alone (``side``), or nothing.
    """
    shown = names or list(record.models)
    rows = []
    for metric in record.catalogue:
        cells = [_cell(record, name, metric, arrows) for name in shown]
        if any(cells):
            rows.append([metric.label, *cells])
    return ["", *(_heading(record, name) for name in shown)], rows


def _heading(record: Record, name: str) -> str:
    return f"{name} (foreign)" if record.models[name].weights == FOREIGN else name


def column_groups(record: Record) -> dict[str, list[str]]:
    """Return the models that belong together by a title: those of the run, those after each attack."""
    groups: dict[str, list[str]] = {}
    for name in record.models:
        _, _, attack = name.partition("+")
        groups.setdefault(f"after the attack {attack}" if attack else "", []).append(name)
    return groups


def title(record: Record) -> str:
    """Return what the run is, with its label where it is toy, from scratch or random."""
    choices = record.run.choices
    parts = [f"{choices['model']} on {choices['dataset']}"]
    if choices.get("method") not in (None, "gradient"):
        parts.append(f"method {choices['method']}")
    if "loss" in choices:
        beside = f" + {choices['regulariser']}" if "regulariser" in choices else ""
        parts.append(f"loss {choices['loss']}{beside}")
    if "init" in choices:
        rank = choices.get("lora.rank")
        base = f", trained on {choices['lora.base']}" if "lora.base" in choices else ""
        parts.append(
            f"init {choices['init']}, rank {rank}{base}" if rank else "all weights trained"
        )
    if record.run.label:
        parts.append(record.run.label)
    return " · ".join(parts)


def notes(record: Record) -> list[str]:
    """Return what stands under the table: the verdict on each model that was to forget, then the rest."""
    lines = []
    for name, model in record.models.items():
        if model.judgement is not None:
            of = "" if name == "unlearned" else f" on {name}"
            lines.append(f"verdict{of}: {model.judgement.sentence}")
        if model.weights == FOREIGN:
            lines.append(
                f"{name} (foreign): not evaluated here, its rows are those of the log {model.path}"
            )
    return lines + record.notes


def _cell(record: Record, name: str, metric: Metric, arrows: Arrows) -> str:
    model = record.models[name]
    value = model.metrics.get(metric.name)
    text = metric.written(value)
    reference = record.models.get(model.reference or "")
    if arrows == "none" or reference is None:
        return text
    goal = reference.metrics.get(metric.name)
    arrow = metric.arrow(value, goal, _chance(record, name, metric))
    return f"{text} {arrow if arrows == 'distance' else arrow[:1]}".strip()


def _chance(record: Record, name: str, metric: Metric) -> float:
    """Return what a model may differ from its reference by chance, of rows and of training.

    Target and reference are two trainings that differ in the forget set alone; what they differ by in
    anything else, two trainings of one recipe may.
    """
    model = record.models[name]
    rows = model.half_widths.get(metric.name, 0.0)
    attack = name.partition("+")[2]
    pair = [record.models.get(f"{of}+{attack}" if attack else of) for of in ("target", "reference")]
    values = [of.metrics.get(metric.name) for of in pair if of is not None]
    if metric.forget or len(values) < 2 or None in values:
        return rows
    return max(rows, abs(float(values[0] or 0) - float(values[1] or 0)))
