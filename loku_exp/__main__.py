"""The command line: ``python -m loku_exp [group=option] [key=value] [-m]``.

A command line is rehearsed before anything heavy is imported: all its mistakes come at once, within
a second or two, and leave nothing behind.
"""

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from omegaconf import DictConfig, OmegaConf

from loku_exp import parallel
from loku_exp.command_line import CommandLine, read_command_line
from loku_exp.compose import compose_all, conf_dir, register_resolvers
from loku_exp.config import parse
from loku_exp.console import start_logging
from loku_exp.errors import ConfigError, UserError
from loku_exp.lifetime import end_in_order, end_with_starter
from loku_exp.schema import Config

log = logging.getLogger("loku_exp")  # __name__ is that of the program here


def main() -> None:
    """Check the command line, then run its job, or the jobs of its sweep."""
    register_resolvers()
    start_logging()
    end_in_order()
    end_with_starter()
    sys.path.insert(0, "")  # the user's own package, beside the command
    try:
        if parallel.rank() > 0:
            parallel.assist()
        else:
            with parallel.leading():
                _lead()
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        interrupted()


def _lead() -> None:
    line, jobs, configs = checked(sys.argv[1:])
    if line is not None:
        if line.multirun or configs[0].launcher.kind != "in_process":
            _sweep(line, jobs, configs)
            return
        sys.argv[1:] = line.arguments
    _hydra_main()


def checked(arguments: list[str]) -> tuple[CommandLine | None, list[list[str]], list[Config]]:
    """Return what is asked for, and the overrides and the configuration of every job.

    Nothing of it where Hydra is to answer, e.g. ``--help``.

    Raises:
        ConfigError: with every problem of every job.
    """
    line = read_command_line(arguments)
    jobs = line.jobs() if line else []
    configs = compose_all(jobs, line.config_dir if line else None)
    several = line is not None and (line.multirun or configs[0].launcher.kind != "in_process")
    if several and parallel.size() > 1:
        raise ConfigError(
            "a sweep under torchrun: start torchrun once a run, without -m and without a launcher"
        )
    return line, jobs, configs


def _sweep(line: CommandLine, jobs: list[list[str]], configs: list[Config]) -> None:
    for config in configs:
        prepare_environment(config)
    os.environ.setdefault("LOKU_SWEEP", " ".join(sys.argv[1:]))  # groups its runs in a tracker
    from loku_exp.sweep import sweep

    if any(job.error for job in sweep(jobs, configs, line.config_dir, run_tracked)):
        raise SystemExit(1)


def run_tracked(config: Config) -> Path:
    """Run a configuration, followed by the tracker it names."""
    from loku_exp.run import run
    from loku_exp.tracking import tracked

    with tracked(config.tracking):
        return run(config)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _hydra_main(composed: DictConfig) -> None:
    config = parse(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    prepare_environment(config)
    try:
        run_tracked(config)
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        interrupted()


def prepare_environment(config: Config) -> None:
    """Set what must be set before torch and the hub libraries are imported."""
    from loku_exp.hub import use_cached_files_if_unreachable

    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    paths = [config.model.tokenizer, str(config.dataset.knobs.get("path") or "")]
    if config.model.weights == "pretrained":
        paths.append(config.model.path)
    if config.model.weights != "random":
        paths.append(config.target.path)
        if config.reference.source == "path":
            paths.append(config.reference.path)
    if config.evaluation.tasks or config.evaluation.knobs.get("ability", "none") != "none":
        paths.append("EleutherAI/lm-eval-tasks")  # stands for the hub datasets of standard tasks
    use_cached_files_if_unreachable(paths)


def fail(error: UserError) -> NoReturn:
    """Print every problem on a line of its own and end with the error's exit code."""
    for problem in str(error).splitlines():
        print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(error.exit_code)


def interrupted() -> NoReturn:
    """End as a shell expects of Ctrl-C, saying how to go on."""
    log.error("interrupted; the same command goes on from the newest snapshot")
    raise SystemExit(130) from None


if __name__ == "__main__":
    main()
