"""What the programs that run something share: how they begin and end, and a tracked run."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loku_exp.config.compose import register_resolvers
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, DataError, UserError
from loku_exp.runtime import distributed
from loku_exp.runtime.lifetime import end_in_order
from loku_exp.runtime.logs import start_logging

log = logging.getLogger(__name__)


def begin_program() -> None:
    """Do what comes before a command line is read."""
    register_resolvers()
    start_logging()
    end_in_order()
    sys.path.insert(0, "")  # the user's own package, beside the command


@contextmanager
def ending() -> Iterator[None]:
    """End with one line a problem and its exit code, or as a shell expects of Ctrl-C."""
    try:
        yield
    except UserError as error:
        found_by_all = isinstance(
            error, ConfigError | DataError
        )  # of processes that train together
        if distributed.rank() == 0 or not found_by_all:
            for problem in str(error).splitlines():
                print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on from what was kept")
        raise SystemExit(130) from None


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
        return run(config)


def add_to(folder: Path, config: Config) -> Path:
    """Do what a finished run lacks of a configuration; no tracker hears of it."""
    from loku_exp.run import run

    return run(config, folder)
