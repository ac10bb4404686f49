"""One run, top to bottom: from configuration to result table."""

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
from loku_exp.stages.inputs import load_inputs
from loku_exp.stages.machine import machine_of, on_this_machine
from loku_exp.stages.record import assemble
from loku_exp.stages.unlearn import note_unlearning, take_over, unlearn
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)


def run(config: Config, known: Path | None = None) -> Path:
    """Run a configuration to its end, go on where it was interrupted, or show it if it is finished.

    Args:
        config: what to run.
        known: folder of a finished run of it, to add attacks to; None: named by what it computes.

    Returns:
        The run's folder.

    Raises:
        UserError: something the user can mend; before any training wherever possible.
    """
    torch.set_num_threads(config.threads)
    watch, cache = Stopwatch(), Cache(config.cache_dir)

    # What the run reads, and everything that can be wrong with it.
    identity.check_places(config)
    config = on_this_machine(config)
    inputs = load_inputs(config, cache)
    adapter = preflight.prepare(config, inputs)
    run_id, unlearning = identity.run_id(config, inputs), identity.unlearning_id(config, inputs)
    folder = identity.folder_of(config, run_id, known)
    workspace = Workspace(folder, cache, config.seed, machine_of(config), inputs.tokenizer)
    if files.has_everything(folder, list(config.attacks)):
        log.info("this run is finished; force=true runs it again beside it")
        show(files.read(folder), folder)
        return folder

    with folders.claimed(folder), log_file(folder / LOG_FILE):
        begin_run(folder, config)
        watch.keep_in(folder / "seconds.json")
        ask = partial(evaluate.evaluate_subject, config=config, inputs=inputs, workspace=workspace)
        evaluations: evaluate.Evaluations = {}

        # The models it starts from, and what they know.
        with watch("bases"), distributed.first_before_others():
            subjects = make_bases(config, inputs, workspace)
            for name, subject in subjects.items():  # the reference first
                evaluations[name] = ask(subject, reference=evaluations.get("reference"))
        evaluate.check_target_knows(config, evaluations["target"])

        # The method, and the subjects it leaves.
        outcome, curve, difference = None, [], None
        if config.unlearn:
            take_over(workspace, unlearning)
            target, knows = subjects["target"], evaluations["target"]
            with watch("unlearning"):
                outcome = unlearn(target, knows, adapter, config, inputs, workspace)
            if distributed.rank() > 0:  # the first evaluates
                return folder
            with watch("curve"):
                curve = evaluate.evaluate_curve(outcome, config, inputs, workspace, evaluations)
            with watch("evaluation"):
                found = ask(outcome.subject, reference=evaluations.get("reference"))
            subjects["unlearned"], evaluations["unlearned"] = outcome.subject, found
            curve.append(evaluate.end_of_curve(outcome, found))
            with watch("shipping"):
                difference = outcome.ship()

        # The same attacks on all of them.
        with watch("attacks"):
            for subject in attacked(dict(subjects), config, inputs, workspace):
                found = ask(subject, reference=evaluations.get(subject.reference or ""))
                subjects[subject.name], evaluations[subject.name] = subject, found

        # Results: the record, one row per example, the table, the curve.
        record = assemble(
            config,
            inputs,
            workspace,
            run=run_id,
            started=watch.started,
            subjects=subjects,
            evaluations=evaluations,
            outcome=outcome,
            curve=curve,
            reload_difference=difference,
            seconds=watch.seconds,
        )
        files.write(folder, record, evaluations)
        if outcome is not None:
            draw_curve(record, folder / "curve.png")
        note_unlearning(workspace, unlearning)
        folders.mark_done(folder, run_id)
    show(record, folder)
    return folder
