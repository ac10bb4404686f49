"""One run, top to bottom: config -> inputs -> subjects -> method -> attacks -> evaluation -> record."""

import logging
from functools import partial
from pathlib import Path

import torch

from loku_exp.config.schema import Config
from loku_exp.results import files
from loku_exp.results import folder as folders
from loku_exp.results.curve import draw_curve
from loku_exp.results.terminal import show
from loku_exp.runtime import distributed
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.logs import Stopwatch, log_file
from loku_exp.stages import evaluate, identity, preflight
from loku_exp.stages.attack import attacked
from loku_exp.stages.bases import LOG_FILE, make_bases
from loku_exp.stages.begin import begin_run
from loku_exp.stages.found import Found, Ready
from loku_exp.stages.inputs import load_inputs
from loku_exp.stages.machine import machine_of, on_this_machine
from loku_exp.stages.record import assemble
from loku_exp.stages.unlearn import note_unlearning, take_over, unlearn
from loku_exp.subject import Outcome, Subject
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)


def run(config: Config, known: Path | None = None) -> Path:
    """Run a configuration to its end, or go on, or show what is finished; return the run's folder.

    Args:
        config: what to run.
        known: folder of a finished run of it, to add attacks to; None: named by what it computes.

    Raises:
        UserError: something the user can mend; before any training wherever possible.
    """
    torch.set_num_threads(config.threads)
    ready = _prepared(config, known)
    folder, watch, found = ready.workspace.folder, Stopwatch(), Found()
    finished = partial(files.has_everything, folder, list(ready.config.attacks))
    if finished():
        log.info("this run is finished; force=true runs it again beside it")
        show(files.read(folder), folder)
        return folder
    with folders.claimed(folder, finished), log_file(folder / LOG_FILE):
        ready = ready.with_attacks_kept()  # another program may have added some
        begin_run(folder, ready.config)
        watch.keep_in(folder / "seconds.json")
        with watch("bases"), distributed.first_before_others():
            for subject in make_bases(ready.config, ready.inputs, ready.workspace).values():
                _ask(subject, ready, found)
        evaluate.check_target_knows(config, found.evaluations["target"])
        if config.unlearn:
            with watch("unlearning"):
                outcome = found.outcome = _unlearned(ready, found)
            if distributed.rank() > 0:  # the first evaluates
                return folder
            _evaluate_and_ship(outcome, ready, found, watch)
        with watch("attacks"):
            subjects = dict(found.subjects)
            for subject in attacked(subjects, ready.config, ready.inputs, ready.workspace):
                _ask(subject, ready, found)
        record = assemble(ready, found, watch)
        files.write(folder, record, found.evaluations)
        if config.unlearn:
            draw_curve(record, folder / "curve.png")
        note_unlearning(ready.workspace, ready.unlearning)
        folders.mark_done(folder, ready.run_id)
    show(record, folder)
    return folder


def _prepared(config: Config, known: Path | None) -> Ready:
    """Load what the run reads, and look at everything that can be wrong with it."""
    identity.check_places(config)
    cache, config = Cache(config.cache_dir), on_this_machine(config)
    inputs = load_inputs(config, cache)
    adapter = preflight.prepare(config, inputs)
    run_id = identity.run_id(config, inputs)
    folder = identity.folder_of(config, run_id, known)
    machine = machine_of(config, inputs.tokenizer)
    workspace = Workspace(folder, cache, config.seed, machine, inputs.tokenizer)
    unlearning = identity.unlearning_id(config, inputs)
    return Ready(config, inputs, adapter, workspace, run_id, unlearning).with_attacks_kept()


def _ask(subject: Subject, ready: Ready, found: Found) -> None:
    """Evaluate a subject; its reference was evaluated before it."""
    compared = found.evaluations.get(subject.reference or "")
    place = (ready.config, ready.inputs, ready.workspace)
    found.subjects[subject.name] = subject
    found.evaluations[subject.name] = evaluate.evaluate_subject(subject, *place, compared)


def _unlearned(ready: Ready, found: Found) -> Outcome:
    """Call the method, or take over what a run beside this one has unlearned."""
    take_over(ready.config, ready.workspace, ready.unlearning)
    place = (ready.config, ready.inputs, ready.workspace)
    target, knows = found.subjects["target"], found.evaluations["target"]
    return unlearn(target, knows, ready.adapter, *place)


def _evaluate_and_ship(outcome: Outcome, ready: Ready, found: Found, watch: Stopwatch) -> None:
    """Evaluate what the method left, along the way and at its end, and write what a user takes away."""
    place = (ready.config, ready.inputs, ready.workspace)
    with watch("curve"):
        found.curve = evaluate.evaluate_curve(outcome, *place, found.evaluations)
    with watch("evaluation"):
        _ask(outcome.subject, ready, found)
    for subject in evaluate.reported_too(outcome, ready.config):
        _ask(subject, ready, found)
    found.curve.append(evaluate.end_of_curve(outcome, found.evaluations, ready.inputs))
    with watch("shipping"):
        found.reload_difference = outcome.ship()
