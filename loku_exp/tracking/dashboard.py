"""Set up a workspace of Weights & Biases for tracked runs, or print what would be set up.

Usage:
    python -m loku_exp.tracking.dashboard [outputs] --entity TEAM [--project loku_exp]
    python -m loku_exp.tracking.dashboard [outputs] --print | --json

Its panels are made of the catalogues of the finished runs under a folder: their metrics, in their words.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loku_exp.errors import UserError
from loku_exp.evaluation.catalogue import Metric
from loku_exp.results.files import read
from loku_exp.results.folder import run_folders
from loku_exp.results.schema import Record
from loku_exp.runtime.finished import is_done
from loku_exp.runtime.programs import ending, parser_of

NAME = "Unlearning"
# Okabe and Ito: safe for the colour-blind, without the yellow that white paper swallows.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
FORGETTING = ("test", "gap", "knowledge")
PER_UPDATE = {
    "forget loss": "forget_loss",
    "retain loss": "retain_loss",
    "gradient norm": "grad_norm",
}
Panels = dict[str, list[Any]]


def main() -> None:
    """Save or print the workspace; exit code 1 with a message where that cannot be done."""
    parser = parser_of("loku_exp.tracking.dashboard", __doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("outputs"),
        help="holds finished runs (outputs)",
    )
    parser.add_argument("--entity", help="user or team; default: the key's own")
    parser.add_argument("--project", default="loku_exp", help="tracking.project of the runs")
    parser.add_argument("--print", action="store_true", help="print what would be shown; no login")
    parser.add_argument(
        "--json", action="store_true", help="print the whole specification; no login"
    )
    given = parser.parse_args()
    with ending():
        records, problems = records_of(given.folder)
        for text in problems:
            print(f"skipped: {text}", file=sys.stderr)
        if not records:
            print(f"{given.folder}: no finished run yet, so no panels of metrics", file=sys.stderr)
        made = workspace(records, given.entity or "entity", given.project)
        if given.json:
            print(json.dumps(specification(made), indent=2))
        elif given.print:
            print("\n".join(outline(made)))
        else:
            print(save(records, given.entity, given.project))


def records_of(folder: Path) -> tuple[list[Record], list[str]]:
    """Return the records of the finished runs under a folder that unlearned, and what others have wrong."""
    records, problems = [], []
    for place in run_folders(folder):
        try:
            records += [read(place)] if is_done(place) else []
        except UserError as error:
            problems.append(" ".join(str(error).split()))
    return [record for record in records if record.unlearned], problems


def workspace(records: list[Record], entity: str, project: str) -> Any:
    """Return the workspace: runs grouped by method and rank, one colour a method.

    A point or line is the mean over the runs of a group, for example over seeds.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2 as panels
    except ImportError as error:
        raise UserError(
            "the dashboard needs the package wandb-workspaces: pip install 'loku_exp[dashboard]'"
        ) from error
    methods = sorted({_method(record) for record in records})
    ranks = sorted({r for record in records if (r := record.run.choices.get("lora.rank"))})
    colors: dict[object, object] = {}
    for place, method in enumerate(methods):
        color = COLORS[place % len(COLORS)]
        colors |= {method: color}
        colors |= {workspaces.GroupPath(method, str(rank)): color for rank in ranks}
    sections = _sections(records, panels)
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name=name, panels=content, is_open=True)
            for name, content in sections.items()
            if content
        ],
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Config("method"), workspaces.Config("lora.rank")],
            group_colors=colors,
        ),
    )


def specification(made: Any) -> dict[str, Any]:
    """Return a workspace as plain data, as it is sent to the server."""
    content: dict[str, Any] = json.loads(made._to_model().model_dump_json(exclude_none=True))
    return content


def outline(made: Any) -> list[str]:
    """Return the sections of a workspace with the titles of their panels, a line each."""
    lines = [f"{made.name} ({made.entity}/{made.project})"]
    for section in made.sections:
        lines += [section.name, *(f"  {panel.title}" for panel in section.panels)]
    return lines


def save(records: list[Record], entity: str | None, project: str) -> str:
    """Save the workspace as a new view of a project; return its address.

    Raises:
        UserError: there is no key, or the server refuses or cannot be reached.
    """
    import wandb

    hint = "--print shows what it would hold without a login"
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        if not wandb.login(prompt=False, verify=False):
            raise UserError(
                f"no key of Weights & Biases: wandb login, or set WANDB_API_KEY; {hint}"
            )
        made = workspace(records, entity or str(wandb.Api(timeout=10).default_entity), project)
        made.save()
    except (wandb.Error, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"the workspace cannot be saved ({line}); {hint}") from error
    return str(made.url)


def _sections(records: list[Record], panels: Any) -> Panels:
    """Return the panels of each section, of what the runs measured."""
    rank, method = panels.Config("lora.rank"), panels.Config("method")
    measured = _metrics(records, lambda record: record.models["unlearned"].metrics)
    along = _metrics(records, lambda r: {name for point in r.curve for name in point.metrics})

    def value(metric: Metric) -> Any:
        return panels.SummaryMetric(f"unlearned/{metric.name}")

    def line(title: str, across: str, key: str) -> Any:
        groups = {"groupby": method, "groupby_rangefunc": "minmax"}
        return panels.LinePlot(title=title, x=across, y=[key], **groups)

    def bar(title: str, key: str) -> Any:
        shown = [panels.SummaryMetric(key)]
        return panels.BarPlot(title=title, metrics=shown, groupby=method, groupby_aggfunc="mean")

    def against(up: Metric, across: str, x: Any, **options: Any) -> Any:
        title, log_y = f"{up.label} against {across}", up.form == "p" or None
        return panels.ScatterPlot(title=title, x=x, y=value(up), log_y=log_y, **options)

    forgetting = [m for part in FORGETTING for m in measured if m.part == part]
    kept = [m for m in measured if m.part == "utility"] or [
        m for m in measured if m.part == "ability"
    ]
    ranked = any(record.run.choices.get("lora.rank") for record in records)
    trained = [record.training for record in records]
    updates = {t: k for t, k in PER_UPDATE.items() if not trained or any(k in r for r in trained)}
    stopped = any("epochs_to_forget" in record.training for record in records)
    success = [bar("share of runs that succeeded, as their suite judges", "success")]
    success += [bar("epochs to forget, where it succeeded", "epochs_to_forget")] if stopped else []
    return {
        "Forgetting against utility": [
            against(m, other.label, value(other)) for m in forgetting for other in kept[:1]
        ],
        "Against rank": [against(m, "rank", rank, log_x=True) for m in measured if ranked],
        "Unlearning curves": [
            *(line(title, "update", f"unlearning/{key}") for title, key in updates.items()),
            *(line(m.label, "epoch", f"snapshot/{m.name}") for m in along),
        ],
        "Success": success,
        "By method": [bar(m.label, f"unlearned/{m.name}") for m in measured if m.form != "p"],
    }


def _metrics(records: list[Record], names: Callable[[Record], Any]) -> list[Metric]:
    """Return the metrics of the catalogues that tables over many runs show and some run has, in order."""
    found: dict[str, Metric] = {}
    for record in records:
        present = names(record)
        for metric in record.catalogue:
            if metric.summary and metric.name in present:
                found.setdefault(metric.name, metric)
    return list(found.values())


def _method(record: Record) -> str:
    """Return the method of a run as its tracker's configuration names it."""
    choices = record.run.choices
    if "loss" not in choices:
        return str(choices.get("method"))
    beside = f" + {choices['regulariser']}" if choices.get("regulariser") else ""
    return f"{choices['loss']}{beside} {choices.get('init') or 'all weights'}"


if __name__ == "__main__":
    main()
