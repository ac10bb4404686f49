"""What the programs that run something share: how they begin, and a tracked run."""

import os
import sys
from pathlib import Path

from loku_exp.config.composing import register_resolvers
from loku_exp.config.schema import Config
from loku_exp.results.folder import PAGE
from loku_exp.runtime import distributed
from loku_exp.runtime.lifetime import end_in_order
from loku_exp.runtime.logs import start_logging


def begin_program() -> None:
    """Do what comes before a command line is read."""
    register_resolvers()
    start_logging()
    end_in_order()
    sys.path.insert(0, "")  # the user's own package, beside the command


def prepare_environment(config: Config) -> None:
    """Set what must be set before torch and the hub libraries are imported."""
    from loku_exp.runtime.hub import use_cached_files_if_unreachable

    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    paths = [config.model.tokenizer, str(config.dataset.knobs.get("path") or "")]
    if config.model.weights == "pretrained":
        paths.append(config.model.path)
    if config.model.weights != "random":
        paths.append(config.target.path)
        if config.reference.source == "path":
            paths.append(config.reference.path)
    if config.evaluation.tasks or config.evaluation.abilities:
        paths.append("EleutherAI/lm-eval-tasks")  # stands for the hub datasets of standard tasks
    use_cached_files_if_unreachable(paths)


def run_tracked(config: Config) -> Path:
    """Run a configuration, followed by the tracker it names."""
    from loku_exp.run import run
    from loku_exp.tracking import tracked

    with tracked(config.tracking):
        folder = run(config)
    if config.page and distributed.rank() == 0:
        print(f"page: {_page(folder)}")
    return folder


def _page(folder: Path) -> Path:
    """Write the report's page over one run into its folder; return its file."""
    from loku_exp.report.collect import collect
    from loku_exp.report.page import write_report

    found = collect(folder)
    return write_report(found, found.runs, folder, folder / PAGE)[0]


def add_to(folder: Path, config: Config) -> Path:
    """Do what a finished run lacks of a configuration, its page made anew; no tracker hears of it."""
    from loku_exp.run import run

    run(config, folder)
    if (folder / PAGE).is_dir():
        print(f"page: {_page(folder)}")
    return folder
