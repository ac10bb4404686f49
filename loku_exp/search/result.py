"""What a search found: the best trial on both halves of the rows, shown and written to a file."""

import json
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from loku_exp.errors import UserError
from loku_exp.results.table import labels, number
from loku_exp.runtime.cache import write_text
from loku_exp.search.criterion import Objective, read_examples
from loku_exp.search.halves import metrics_of, split
from loku_exp.search.space import overrides_of
from loku_exp.sweeps.table import SHOWN

BOUND = "distance above the limit"  # of a trial; at most 0 where its run forgets enough
Metrics = dict[str, dict[str, float]]


def report(study: optuna.Study, objective: Objective, file: Path) -> None:
    """Print the trials, and the best one's metrics on both halves; write them to a file.

    Raises:
        UserError: no trial forgets enough.
    """
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    feasible = [trial for trial in done if trial.user_attrs[BOUND] <= 0]
    counts = f"{len(study.trials)} trials, {len(failed)} failed, {len(feasible)} forget enough"
    if not feasible:
        raise UserError(
            f"{counts}: no {objective.constrain} is within its limit; widen the search, or raise "
            "--margin or --at-most"
        )
    best = max(feasible, key=lambda trial: trial.value or 0.0)
    folder = best.user_attrs["folder"]
    halves = split(read_examples(Path(folder)), objective.split_seed)
    selection, reported = (metrics_of(half) for half in halves)
    console = Console()
    console.print(_table(best, objective, selection, reported))
    console.print(
        f"{counts}; trial {best.number + 1} has the largest {objective.maximise}. Report the reported "
        f"half: it took no part in the choice. files: {folder}",
        highlight=False,
        soft_wrap=True,
    )
    content = {
        "objective": vars(objective),
        "trials": {"all": len(study.trials), "failed": len(failed), "feasible": len(feasible)},
        "best": {"params": best.params, "folder": folder},
        "selection": selection,
        "reported": reported,
    }
    write_text(file, json.dumps(content, indent=1) + "\n")


def _table(
    best: optuna.trial.FrozenTrial, objective: Objective, selection: Metrics, reported: Metrics
) -> Table:
    roles = [role for role in ("target", "unlearned", "reference") if role in reported]
    table = Table(title=" ".join(overrides_of(best.params)), title_justify="left")
    table.add_column("")
    for name in ("unlearned, selection half", *(f"{role}, reported half" for role in roles)):
        table.add_column(name, justify="right")
    for name, label in labels(set(reported["unlearned"]) & {*SHOWN, objective.constrain}).items():
        values = [selection["unlearned"].get(name), *(reported[role].get(name) for role in roles)]
        table.add_row(label, *(number(name, value) for value in values))
    return table
