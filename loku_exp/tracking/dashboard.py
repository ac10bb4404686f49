"""Set up a workspace of Weights & Biases for tracked runs, or print what would be set up.

Usage:
    python -m loku_exp.tracking.dashboard --entity TEAM [--project loku_exp]
    python -m loku_exp.tracking.dashboard --print
"""

import argparse
import json
import os
import sys
from typing import Any

from loku_exp.errors import UserError

NAME = "Unlearning"
# Okabe and Ito: safe for the colour-blind. Blue and green: LoKU's loss; warm colours: its baselines.
COLORS = {
    "ihl fila": "#0072B2",
    "ihl fila_official": "#56B4E9",
    "ihl vanilla": "#009E73",
    "gd fila": "#D55E00",
    "gd fila_official": "#CC79A7",
    "gd vanilla": "#E69F00",
    "ga vanilla": "#000000",
}
RANKS = (4, 8, 16, 32)
BY_RANK = {
    "model utility": "unlearned/model_utility",
    "forget quality": "unlearned/forget_quality",
    "forget set, probability": "unlearned/forget_prob",
    "retain set, probability": "unlearned/retain_prob",
    "reasoning": "unlearned/reasoning",
    "epochs to forget": "epochs_to_forget",
}
CURVES = {
    "forget loss": ("update", "unlearning/forget_loss"),
    "retain loss": ("update", "unlearning/retain_loss"),
    "gradient norm": ("update", "unlearning/grad_norm"),
    "forget set, probability": ("epoch", "snapshot/forget_prob"),
    "retain set, probability": ("epoch", "snapshot/retain_prob"),
    "memorisation accuracy": ("epoch", "snapshot/forget_ma"),
}


def main() -> None:
    """Save or print the workspace; exit code 1 with a message where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m loku_exp.tracking.dashboard", description=__doc__
    )
    parser.add_argument("--entity", help="user or team; default: the key's own")
    parser.add_argument("--project", default="loku_exp", help="tracking.project of the runs")
    parser.add_argument("--print", action="store_true", help="print the specification; no login")
    arguments = parser.parse_args()
    try:
        if arguments.print:
            entity = arguments.entity or "entity"
            print(json.dumps(specification(workspace(entity, arguments.project)), indent=2))
        else:
            print(save(arguments.entity, arguments.project))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def workspace(entity: str, project: str) -> Any:
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
    summary, rank, method = (
        panels.SummaryMetric,
        panels.Config("lora.rank"),
        panels.Config("method"),
    )
    trade_off = [
        panels.ScatterPlot(
            title="forget quality against model utility",
            x=summary("unlearned/model_utility"),
            y=summary("unlearned/forget_quality"),
            log_y=True,
        ),
        panels.ScatterPlot(
            title="extraction likelihood against reasoning",
            x=summary("unlearned/reasoning"),
            y=summary("unlearned/forget_el10"),
        ),
    ]
    against_rank = [
        panels.ScatterPlot(title=f"{title} against rank", x=rank, y=summary(metric), log_x=True)
        for title, metric in BY_RANK.items()
    ]
    curves = [
        panels.LinePlot(title=title, x=x, y=[y], groupby=method, groupby_rangefunc="minmax")
        for title, (x, y) in CURVES.items()
    ]
    success = [
        panels.BarPlot(
            title=title, metrics=[summary(metric)], groupby=method, groupby_aggfunc="mean"
        )
        for title, metric in (
            ("share of runs that forgot", "success"),
            ("epochs to forget, where it succeeded", "epochs_to_forget"),
        )
    ]
    sections: dict[str, list[Any]] = {
        "Forgetting against utility": trade_off,
        "Against rank": against_rank,
        "Unlearning curves": curves,
        "TDEC success": success,
    }
    group = workspaces.GroupPath
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name=name, panels=content, is_open=True)
            for name, content in sections.items()
        ],
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Config("method"), workspaces.Config("lora.rank")],
            group_colors=COLORS
            | {group(name, str(r)): color for name, color in COLORS.items() for r in RANKS},
        ),
    )


def specification(made: Any) -> dict[str, Any]:
    """Return a workspace as plain data, as it is sent to the server."""
    content: dict[str, Any] = json.loads(made._to_model().model_dump_json(exclude_none=True))
    return content


def save(entity: str | None, project: str) -> str:
    """Save the workspace as a new view of a project; return its address.

    Raises:
        UserError: there is no key, or the server refuses or cannot be reached.
    """
    import wandb

    hint = "--print shows the specification without a login"
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        if not wandb.login(prompt=False, verify=False):
            raise UserError(
                f"no key of Weights & Biases: wandb login, or set WANDB_API_KEY; {hint}"
            )
        made = workspace(entity or str(wandb.Api(timeout=10).default_entity), project)
        made.save()
    except (wandb.Error, OSError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"the workspace cannot be saved ({line}); {hint}") from error
    return str(made.url)


if __name__ == "__main__":
    main()
