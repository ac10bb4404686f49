"""The command line: ``python -m loku_exp [group=option] [key=value] [-m]``.

A command line is rehearsed before anything heavy is imported: all its mistakes come at once, within
a second or two, and leave nothing behind.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from textwrap import fill

import hydra
from omegaconf import DictConfig

from loku_exp.config.command_line import (
    CommandLine,
    check_asked_of_hydra,
    for_hydra,
    read_command_line,
)
from loku_exp.config.compose import compose_all
from loku_exp.config.groups import conf_dir
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError
from loku_exp.runtime import distributed
from loku_exp.runtime.lifetime import end_with_starter
from loku_exp.runtime.programs import ending
from loku_exp.startup import begin_program, prepare_environment, run_tracked


def main(arguments: list[str] | None = None) -> None:
    """Check the command line, then run its job, or the jobs of its sweep."""
    begin_program()
    end_with_starter()
    with ending(), distributed.connected():
        line, jobs, configs = checked(sys.argv[1:] if arguments is None else arguments)
        if line is None:
            check_asked_of_hydra(sys.argv[1:])
            sys.argv[1:] = for_hydra(sys.argv[1:])
            with _folded():
                _answered_by_hydra()
        elif line.multirun or configs[0].launcher.kind != "in_process":
            _sweep(line, jobs, configs)
        else:
            prepare_environment(configs[0])
            run_tracked(configs[0])


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
    if several and distributed.size() > 1:
        raise ConfigError(
            "a sweep under torchrun: start torchrun once a run, without -m and without a launcher"
        )
    return line, jobs, configs


def _sweep(line: CommandLine, jobs: list[list[str]], configs: list[Config]) -> None:
    for config in configs:
        prepare_environment(config)
    os.environ.setdefault("LOKU_SWEEP", " ".join(sys.argv[1:]))  # groups its runs in a tracker
    from loku_exp.sweeps.sweep import sweep

    if any(job.error for job in sweep(jobs, configs, line.config_dir, run_tracked)):
        raise SystemExit(1)


@contextmanager
def _folded() -> Iterator[None]:
    """Fold the lines of ``--help`` that list the options of a group."""
    place = sys.stdout
    with redirect_stdout(StringIO()) as said:
        try:
            yield
        finally:
            for line in said.getvalue().splitlines():
                lists = re.match(r"\w+: \w+,", line)
                print(fill(line, 80, subsequent_indent="    ") if lists else line, file=place)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _answered_by_hydra(_: DictConfig) -> None:
    """Let Hydra answer what is asked of it: ``--help``, ``--cfg``, ``--info``."""


if __name__ == "__main__":
    main()
