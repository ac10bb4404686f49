"""One run, top to bottom: from configuration to result table."""

import logging
from datetime import UTC, datetime
from pathlib import Path

import torch

from loku_exp.config.schema import Config
from loku_exp.methods import gradient as method
from loku_exp.methods.stop_rule import thresholds_of
from loku_exp.results import curve as plots
from loku_exp.results import files as results
from loku_exp.results import folder as runs
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.logs import Stopwatch, log_file
from loku_exp.stages import evaluate as assessment
from loku_exp.stages import preflight
from loku_exp.stages.bases import load_base, make_bases
from loku_exp.stages.inputs import load_materials
from loku_exp.stages.record import assemble

log = logging.getLogger(__name__)


def run(config: Config) -> Path:
    """Run a configuration to its end, go on where it was interrupted, or show it if it is finished.

    Returns:
        The run's folder.

    Raises:
        UserError: something the user can mend; before any training wherever possible.
    """
    torch.set_num_threads(config.threads)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    cache, watch = Cache(config.cache_dir), Stopwatch()

    # What the run reads, and everything that can be wrong with it.
    runs.check_places(config)
    materials = load_materials(config, cache)
    adapter, published = preflight.prepare(config, materials)
    run_id = runs.run_id(config, materials)
    folder = runs.run_folder(config, run_id)
    if runs.is_done(folder):
        log.info("this run is finished; force=true runs it again beside it")
        results.show(results.read(folder), folder)
        return folder

    with runs.claimed(folder), log_file(folder / "run.log"):
        runs.begin(folder, config)

        # The models it starts from.
        with watch("bases"):
            bases = make_bases(config, materials, cache)
            evaluations = assessment.assess_bases(bases, published, config, materials, cache)
        assessment.check_target_knows(config, evaluations["target"])
        thresholds = thresholds_of(config.training.stop, evaluations["target"])

        # Unlearning, and the evaluation of what it left.
        unlearned, curve, difference = None, [], None
        if config.unlearn:
            target = bases["target"]
            with watch("unlearning"):
                model = load_base(target, config, materials, train_all=adapter is None)
                unlearned = method.apply(
                    model, target, adapter, config, materials, cache, folder, thresholds
                )
            with watch("curve"):
                curve = assessment.assess_curve(unlearned, config, materials, evaluations)
            with watch("evaluation"):
                final = assessment.assess_unlearned(unlearned, config, materials, evaluations)
                evaluations["unlearned"] = final
            curve.append(assessment.curve_point(unlearned.snapshots[-1], final.metrics))
            with watch("shipping"):
                difference = method.ship(unlearned, target, adapter, config, materials, folder)

        # Results: the record, one row per example, the table, the curve.
        record = assemble(
            config,
            materials,
            run=run_id,
            started=started,
            bases=bases,
            evaluations=evaluations,
            unlearned=unlearned,
            curve=curve,
            reload_difference=difference,
            seconds=watch.seconds,
        )
        results.write(folder, record, evaluations)
        if unlearned is not None:
            plots.curve(record, folder / "curve.png")
        runs.mark_done(folder, run_id)
    results.show(record, folder)
    return folder
