"""Search for the best setting: utility among the runs that forget enough, chosen on half of the rows.

Usage:
    python -m loku_exp.search --trials 20 'training.learning_rate=tag(log,interval(1e-4,1e-2))' loss=gd,ihl

Values are written as for a sweep, and as intervals: ``interval(0,1)``, ``tag(log,interval(1e-4,1e-2))``;
whole numbers as ``range(4,33,4)``. A trial is a run like any other. It is judged by the selection half of
the evaluated authors (or rows) alone; the other half is shown for the best trial only. A collapsed run, or
one that failed, is a failed trial. The same command goes on where it was interrupted.
"""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loku_exp.config.compose import compose_all
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, UserError
from loku_exp.runtime.cache import digest
from loku_exp.runtime.programs import ending, parser_of
from loku_exp.runtime.whole_files import writing
from loku_exp.search.asked import MARGIN, Asked, asked_of, criterion_of, suite_of
from loku_exp.startup import begin_program, prepare_environment, run_tracked

if TYPE_CHECKING:
    import optuna

    from loku_exp.evaluation.suite import Suite
    from loku_exp.search.criterion import Criterion
    from loku_exp.sweeps.jobs import Job, Launcher

log = logging.getLogger("loku_exp.search")  # also where this file is the program


def main() -> None:
    """Run the command line."""
    begin_program()
    with ending():
        search(_arguments().parse_intermixed_args())


def search(arguments: argparse.Namespace) -> None:
    """Search, then show the best trial on the half of the rows it was not chosen by.

    Raises:
        UserError: something to mend; before the first trial wherever possible.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "a search needs the package optuna: pip install 'loku_exp[search]'"
        ) from error
    from loku_exp.search.kept import study_of
    from loku_exp.search.result import report
    from loku_exp.stages.identity import check_places

    asked = asked_of(arguments)
    config, first = asked.checked()
    criterion = criterion_of(arguments, config)
    check_places(config)
    suite = suite_of(config, criterion)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = Path(config.output_dir).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    described = {key: repr(distribution) for key, distribution in asked.space.items()}
    attacks = config.model_dump(mode="json", by_alias=True, include={"attacks"})
    # a run's name has what is in its data, so that trials on other data are not taken for these
    content = [first.folder.name, attacks, described, vars(criterion), asked.seed]
    name = "search-" + digest(content, 12)
    os.environ.setdefault("LOKU_SWEEP", " ".join(["search", *arguments.overrides]))
    with writing(place / f"{name}.journal"):
        study = study_of(place, name)
        _go_on(study, asked, config, criterion, suite)
    report(study, criterion, suite, place / f"{name}.json")


def _go_on(
    study: "optuna.Study", asked: Asked, config: Config, criterion: "Criterion", suite: "Suite"
) -> None:
    """Run trials, interrupted ones first, until there are as many as asked for.

    Raises:
        UserError: a run ended for what is not its setting's fault; its trial is the next call's first.
    """
    prepare_environment(config)
    from loku_exp.search.kept import drawing
    from loku_exp.sweeps.launchers import launcher_of

    launcher = launcher_of(config, run_tracked)

    def next_batch() -> list[tuple[int, dict[str, Any]]]:
        with drawing(Path(config.output_dir).expanduser(), study.study_name):
            return _batch(study, asked, len(launcher.slots))

    while batch := next_batch():
        log.info("trials %s of %d", ", ".join(str(n + 1) for n, _ in batch), asked.trials)
        jobs = _work(study, batch, asked, launcher)
        for number, job in jobs.items():
            if not job.again:
                _judge(study, number, job, criterion, suite)
        again = [f"trial {number + 1}: {job.error}" for number, job in jobs.items() if job.again]
        if again:
            raise UserError("\n".join(again))


def _batch(study: "optuna.Study", asked: Asked, size: int) -> list[tuple[int, dict[str, Any]]]:
    """Return numbers and settings of the next trials, at most so many; none when all have ended.

    Callers hold `drawing`, so a trial that lacks settings was left by a search that was killed.
    """
    import optuna

    from loku_exp.search.kept import settings_of

    begun = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    ended = len(study.trials) - len(begun)
    numbers = [trial.number for trial in begun[:size]]
    batch = [(number, settings_of(study, number, asked.space, asked.seed)) for number in numbers]
    while len(batch) < min(size, asked.trials - ended):
        number = study.ask().number
        batch.append((number, settings_of(study, number, asked.space, asked.seed)))
    return batch


def _work(
    study: "optuna.Study",
    batch: list[tuple[int, dict[str, Any]]],
    asked: Asked,
    launcher: "Launcher",
) -> dict[int, "Job"]:
    """Run the trials of a batch that are no finished runs yet; return their runs by number.

    Those whose settings do not go together are failed trials.
    """
    from loku_exp.search.kept import note_failure
    from loku_exp.search.space import overrides_of
    from loku_exp.stages.space import check_space
    from loku_exp.sweeps.jobs import SKIPPED
    from loku_exp.sweeps.plan import checked_jobs
    from loku_exp.sweeps.sweep import work_on

    jobs, needs = {}, []
    for number, params in batch:
        overrides = [*asked.fixed, *overrides_of(params)]
        try:
            configs = compose_all([overrides], asked.config_dir)
            (job,), writes = checked_jobs([overrides], configs, asked.config_dir)
        except ConfigError as error:
            asked.checked()  # ends the search where data or folders are wrong by now
            note_failure(study, number, "; ".join(str(error).splitlines()))
            continue
        job.label = " ".join(overrides_of(params))
        jobs[number] = job
        needs += writes
    todo = {job.folder: job for job in jobs.values() if job.state != SKIPPED}
    check_space(needs, len(todo))
    for job in work_on(list(todo.values()), launcher):
        log.info("%s: %s", job.state, job.label)
    return {number: todo.get(job.folder, job) for number, job in jobs.items()}


def _judge(
    study: "optuna.Study", number: int, job: "Job", criterion: "Criterion", suite: "Suite"
) -> None:
    """Tell the study what a run is worth; a failed or collapsed one is no value, good or bad."""
    from loku_exp.results.examples import read_examples
    from loku_exp.search.criterion import judged
    from loku_exp.search.kept import note_failure, note_value

    problem, value, above = job.error, None, None
    if problem is None:
        problem, value, above = judged(read_examples(job.folder), criterion, suite)
    if problem is not None or value is None or above is None:
        note_failure(study, number, str(problem))
        return
    note_value(study, number, job.folder, value, above)
    where = f"{abs(above):.4f} {'above' if above > 0 else 'within'} its limit"
    log.info(
        "trial %d: %s %.4f, %s %s",
        number + 1,
        criterion.maximise,
        value,
        criterion.constrain,
        where,
    )


def _arguments() -> argparse.ArgumentParser:
    parser = parser_of("loku_exp.search", __doc__)
    add = parser.add_argument
    add("overrides", nargs="*", help="as for python -m loku_exp; several values are searched over")
    add("--trials", type=int, required=True, help="runs in all, those of earlier calls included")
    add("--maximise", default="model_utility", help="metric of the selection half")
    add("--constrain", default="forget_prob", help="metric that must be within the limit there")
    add("--at-most", type=float, help="the limit (default: the reference's value plus --margin)")
    add("--margin", type=float, help=f"above the reference's value ({MARGIN})")
    add("--seed", type=int, default=0, help="of the sampler")
    add("--split-seed", type=int, default=0, help="of the two halves")
    add("--config-dir", "-cd", help="a folder of your own yaml")
    return parser


if __name__ == "__main__":
    main()
