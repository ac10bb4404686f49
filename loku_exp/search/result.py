"""What a search found: the best trial on both halves of the rows, shown and written to a file."""

import json
from pathlib import Path

import optuna
from optuna.trial import TrialState
from rich import box
from rich.table import Table

from loku_exp.errors import UserError
from loku_exp.evaluation.catalogue import by_name
from loku_exp.evaluation.halves import metrics_of, split_examples
from loku_exp.evaluation.suite import Suite
from loku_exp.results.examples import read_examples
from loku_exp.results.terminal import console
from loku_exp.runtime.whole_files import write_text
from loku_exp.search.criterion import Criterion
from loku_exp.search.kept import BOUND
from loku_exp.search.space import overrides_of

Metrics = dict[str, dict[str, float]]


def report(study: optuna.Study, criterion: Criterion, suite: Suite, file: Path) -> None:
    """Print the trials, and the best one's metrics on both halves; write them to a file.

    Raises:
        UserError: no trial forgets enough, or none ended well.
    """
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    feasible = [trial for trial in done if trial.user_attrs[BOUND] <= 0]
    counts = f"{len(study.trials)} trials, {len(failed)} failed, {len(feasible)} forget enough"
    if not done:
        first = [
            f"; trial {trial.number + 1}: {trial.user_attrs.get('failure', 'see above')}"
            for trial in failed[:1]
        ]
        raise UserError(f"{counts}: none has a value{''.join(first)}")
    if not feasible:
        raise UserError(
            f"{counts}: no {criterion.constrain} is within its limit; widen the search, or raise "
            "--margin or --at-most"
        )
    best = max(feasible, key=lambda trial: trial.value or 0.0)
    folder = file.parent / Path(best.user_attrs["folder"]).name  # wherever it was moved to
    halves = split_examples(read_examples(folder), criterion.split_seed)
    selection, reported = (metrics_of(half, suite) for half in halves)
    place = console()
    place.print(_table(best, criterion, suite, selection, reported))
    place.print(
        f"{counts}; trial {best.number + 1} has the largest {criterion.maximise}. Report the reported "
        f"half: it took no part in the choice. files: {folder}",
        soft_wrap=True,
    )
    content = {
        "criterion": vars(criterion),
        "trials": {"all": len(study.trials), "failed": len(failed), "feasible": len(feasible)},
        "best": {"params": best.params, "folder": str(folder)},
        "selection": selection,
        "reported": reported,
    }
    write_text(file, json.dumps(content, indent=1) + "\n")


def _table(
    best: optuna.trial.FrozenTrial,
    criterion: Criterion,
    suite: Suite,
    selection: Metrics,
    reported: Metrics,
) -> Table:
    roles = [role for role in ("target", "unlearned", "reference") if role in reported]
    table = Table(
        title=" ".join(overrides_of(best.params)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    for name in ("unlearned,\nselection half", *(f"{role},\nreported half" for role in roles)):
        table.add_column(name, justify="right")
    for name, metric in by_name(suite.catalogue).items():
        if name in reported["unlearned"] and (metric.summary or name == criterion.constrain):
            values = [selection["unlearned"].get(name), *(reported[r].get(name) for r in roles)]
            table.add_row(metric.label, *map(metric.written, values))
    return table
