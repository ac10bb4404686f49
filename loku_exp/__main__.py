"""The command line: ``python -m loku_exp [group=option] [key=value] [-m]``.

A command line is rehearsed before anything heavy is imported: all its mistakes come at once, within
a second or two, and leave nothing behind.
"""

import logging
import os
import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from loku_exp import parallel
from loku_exp.compose import conf_dir, read_command_line, register_resolvers, rehearse
from loku_exp.config import parse
from loku_exp.console import start_logging
from loku_exp.errors import ConfigError, UserError
from loku_exp.schema import Config

log = logging.getLogger(__name__)


def main() -> None:
    """Check the command line, then run its job, or its jobs one after another."""
    register_resolvers()
    start_logging()
    sys.path.insert(0, "")  # the user's own package, beside the command
    try:
        if parallel.rank() > 0:
            parallel.assist()
        else:
            with parallel.leading():
                _lead()
    except UserError as error:
        _fail(error)


def _lead() -> None:
    sys.argv[1:] = checked(sys.argv[1:])
    if sys.argv[1:2] == ["--multirun"]:
        os.environ.setdefault("LOKU_SWEEP", " ".join(sys.argv[2:]))  # groups its jobs in a tracker
    _hydra_main()


def checked(arguments: list[str]) -> list[str]:
    """Return the arguments for Hydra, after a rehearsal of every job.

    Raises:
        ConfigError: with every problem of every job.
    """
    line = read_command_line(arguments)
    if line is None:
        return arguments
    if line.multirun and parallel.size() > 1:
        raise ConfigError(
            "-m under torchrun: a sweep runs its jobs in one process; start torchrun once a job, without -m"
        )
    found: dict[str, None] = {}
    for overrides in line.jobs():
        found |= dict.fromkeys(rehearse(overrides, line.config_dir))
    if found:
        raise ConfigError(list(found))
    return line.arguments


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _hydra_main(composed: DictConfig) -> None:
    config = parse(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    _prepare_environment(config)
    from loku_exp.run import run
    from loku_exp.tracking import tracked

    try:
        with tracked(config.tracking):
            run(config)
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on from the newest snapshot")
        raise SystemExit(130) from None


def _prepare_environment(config: Config) -> None:
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


def _fail(error: UserError) -> None:
    for problem in str(error).splitlines():
        print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
