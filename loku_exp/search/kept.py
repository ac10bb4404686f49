"""The study of a search, kept in a journal: whole after a kill, and used by several searches at a time."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from loku_exp.runtime.seeds import derive

log = logging.getLogger(__name__)
BOUND = "distance above the limit"  # of a trial; at most 0 where its run forgets enough


def study_of(place: Path, name: str) -> optuna.Study:
    """Return a study, begun or gone on with.

    Args:
        place: folder of its journal.
        name: of the study.
    """
    journal = place / f"{name}.journal"
    # Optuna's own lock is a link that a killed search leaves, and that is waited for without an end.
    lock: Any = FileLock(place / f".{name}.lock")
    with lock:
        _drop_half_written(journal)
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal), lock)),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )


def drawing(place: Path, name: str) -> FileLock:
    """Return the lock under which trials are drawn: nobody else sees one that has half of its settings.

    Args:
        place: folder of the study's journal.
        name: of the study.
    """
    return FileLock(place / f".{name}.drawing.lock")


def settings_of(
    study: optuna.Study, number: int, space: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Return the settings of a trial that has begun; those it has not yet are drawn.

    Args:
        study: of the trial.
        number: of the trial.
        space: what each key is drawn from.
        seed: of the search.
    """
    # A sampler a trial, so that a search that was interrupted asks for the same trials.
    study.sampler = optuna.samplers.TPESampler(seed=derive(seed, "search", str(number)))
    trial = Trial(study, study.trials[number]._trial_id)
    for key, distribution in space.items():
        trial._suggest(key, distribution)
    return trial.params


def _drop_half_written(journal: Path) -> None:
    """Drop what was being written when the disk was full: with more behind it Optuna can read no line."""
    content = journal.read_bytes() if journal.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as stream:
            stream.truncate(whole)


def note_value(study: optuna.Study, number: int, folder: Path, value: float, above: float) -> None:
    """Tell what a trial's run is worth, unless another search of the same study was faster.

    Args:
        study: of the trial.
        number: of the trial.
        folder: of its run.
        value: what is searched for.
        above: the limit, so much.
    """
    trial = Trial(study, study.trials[number]._trial_id)
    with suppress(UpdateFinishedTrialError):
        trial.set_user_attr("folder", str(folder))
        trial.set_user_attr(BOUND, above)
        trial.set_constraint(BOUND, above)
        study.tell(number, value, skip_if_finished=True)


def note_failure(study: optuna.Study, number: int, problem: str) -> None:
    """Tell that a trial has no value, good or bad, and why."""
    log.warning("trial %d failed: %s", number + 1, problem)
    trial = Trial(study, study.trials[number]._trial_id)
    with suppress(UpdateFinishedTrialError):
        trial.set_user_attr("failure", problem)
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
