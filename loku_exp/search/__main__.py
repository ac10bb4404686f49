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
from loku_exp.errors import ConfigError
from loku_exp.runtime.cache import digest
from loku_exp.runtime.programs import ending, parser_of
from loku_exp.runtime.seeds import derive
from loku_exp.search.asked import MARGIN, criterion_of, overrides_read, suite_of
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
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ConfigError(
            "a search needs the package optuna: pip install 'loku_exp[search]'"
        ) from error
    from loku_exp.search.space import distribution, overrides_of, samples

    parsed = overrides_read(arguments)
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    space = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
    if not space:
        raise ConfigError("nothing to search over; give a key several values: lora.rank=4,8,16")
    tried = [[*fixed, *overrides_of(sample)] for sample in samples(space)]
    config = compose_all(tried, arguments.config_dir)[0]
    from loku_exp.search.result import report
    from loku_exp.stages.identity import NOT_IDENTITY, check_places

    criterion = criterion_of(arguments, config)
    check_places(config)
    suite = suite_of(config, criterion)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = Path(config.output_dir).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    described = {key: repr(distribution) for key, distribution in space.items()}
    asked = config.model_dump(mode="json", by_alias=True, exclude=NOT_IDENTITY)
    name = "search-" + digest([asked, described, vars(criterion), arguments.seed], 12)
    backend = JournalFileBackend(str(place / f"{name}.journal"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )
    _go_on(study, space, fixed, config, criterion, suite, arguments)
    report(study, criterion, suite, place / f"{name}.json")


def _go_on(
    study: "optuna.Study",
    space: dict[str, Any],
    fixed: list[str],
    config: Config,
    criterion: "Criterion",
    suite: "Suite",
    arguments: argparse.Namespace,
) -> None:
    """Run trials, interrupted ones first, until there are as many as asked for."""
    import optuna

    prepare_environment(config)
    os.environ.setdefault("LOKU_SWEEP", " ".join(["search", *arguments.overrides]))
    from loku_exp.sweeps.launchers import launcher_of

    launcher = launcher_of(config, run_tracked)
    state = optuna.trial.TrialState
    while True:
        begun = study.get_trials(deepcopy=False, states=(state.RUNNING,))
        ended = len(study.trials) - len(begun)
        batch = [(trial.number, trial.params) for trial in begun[: len(launcher.slots)]]
        while len(batch) < min(len(launcher.slots), arguments.trials - ended):
            # A sampler a trial, so that a search that was interrupted asks for the same trials.
            seed = derive(arguments.seed, "search", str(len(study.trials)))
            study.sampler = optuna.samplers.TPESampler(seed=seed)
            asked = study.ask(space)
            batch.append((asked.number, asked.params))
        if not batch:
            return
        log.info("trials %s of %d", ", ".join(str(n + 1) for n, _ in batch), arguments.trials)
        for number, job in _work(batch, fixed, arguments.config_dir, launcher).items():
            _judge(study, number, job, criterion, suite)


def _work(
    batch: list[tuple[int, dict[str, Any]]],
    fixed: list[str],
    config_dir: str | None,
    launcher: "Launcher",
) -> dict[int, "Job"]:
    """Run the trials of a batch that are no finished runs yet; return their runs by number."""
    from loku_exp.search.space import overrides_of
    from loku_exp.sweeps.jobs import SKIPPED
    from loku_exp.sweeps.plan import plan_jobs
    from loku_exp.sweeps.sweep import work_on

    jobs = {}
    for number, params in batch:
        overrides = [*fixed, *overrides_of(params)]
        (jobs[number],) = plan_jobs([overrides], compose_all([overrides], config_dir), config_dir)
        jobs[number].label = " ".join(overrides_of(params))
    todo = {job.folder: job for job in jobs.values() if job.state != SKIPPED}
    for job in work_on(list(todo.values()), launcher):
        log.info("%s: %s", job.state, job.label)
    return {number: todo.get(job.folder, job) for number, job in jobs.items()}


def _judge(
    study: "optuna.Study", number: int, job: "Job", criterion: "Criterion", suite: "Suite"
) -> None:
    """Tell the study what a run is worth; a failed or collapsed one is no value, good or bad."""
    import optuna

    from loku_exp.results.examples import read_examples
    from loku_exp.search.criterion import judged
    from loku_exp.search.result import BOUND

    if study.trials[number].state.is_finished():  # another search of the same study was faster
        return
    trial = optuna.trial.Trial(study, study.trials[number]._trial_id)
    trial.set_user_attr("folder", str(job.folder))
    problem, value, above = job.error, None, None
    if problem is None:
        problem, value, above = judged(read_examples(job.folder), criterion, suite)
    if problem is not None or above is None:
        log.warning("trial %d failed: %s", number + 1, problem)
        trial.set_user_attr("failure", problem)
        study.tell(number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        return
    trial.set_user_attr(BOUND, above)
    trial.set_constraint(BOUND, above)
    study.tell(number, value, skip_if_finished=True)
    log.info("trial %d: %s %.4f, limit %+.4f", number + 1, criterion.maximise, value, above)


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
