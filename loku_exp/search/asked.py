"""What is asked of a search: read, and checked before its first trial."""

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override

from loku_exp.config import grid
from loku_exp.config.compose import compose_all
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, nearest
from loku_exp.runtime import distributed

if TYPE_CHECKING:
    from loku_exp.evaluation.suite import Suite
    from loku_exp.search.criterion import Criterion
    from loku_exp.sweeps.jobs import Job

MARGIN = 0.05


@dataclass(frozen=True)
class Asked:
    """What is asked of a search.

    Attributes:
        fixed: overrides of every trial.
        space: what Optuna draws each other key from.
        config_dir: a folder of the user's own yaml.
        trials: runs in all.
        seed: of the sampler.
    """

    fixed: list[str]
    space: dict[str, Any]
    config_dir: str | None
    trials: int
    seed: int

    def checked(self) -> tuple[Config, "Job"]:
        """Return the first of settings from all over the space: what it composes to, and as a run.

        Raises:
            ConfigError: with every problem of every one of them.
        """
        from loku_exp.search.space import overrides_of, samples
        from loku_exp.sweeps.plan import checked_jobs

        tried = [[*self.fixed, *overrides_of(sample)] for sample in samples(self.space)]
        configs = compose_all(tried, self.config_dir)
        # a run to be made again is another folder each time
        same = [config.model_copy(update={"force": False}) for config in configs]
        return configs[0], checked_jobs(tried, same, self.config_dir)[0][0]


def asked_of(arguments: argparse.Namespace) -> Asked:
    """Return what a command line asks for.

    Raises:
        ConfigError: it cannot be.
    """
    from loku_exp.search.space import distribution

    parsed = overrides_read(arguments)
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    space = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
    if not space:
        raise ConfigError("nothing to search over; give a key several values: lora.rank=4,8,16")
    return Asked(fixed, space, arguments.config_dir, arguments.trials, arguments.seed)


def overrides_read(arguments: argparse.Namespace) -> list[Override]:
    """Return the overrides, read.

    Raises:
        ConfigError: they or the options ask for what cannot be.
    """
    if distributed.size() > 1:
        raise ConfigError("a search under torchrun: its runs have a process each; start it without")
    if arguments.trials < 1:
        raise ConfigError(f"--trials {arguments.trials}: a search needs at least one")
    if arguments.at_most is not None and arguments.margin is not None:
        raise ConfigError(
            "--at-most and --margin: the margin is above the reference's value; give one of the two"
        )
    if not math.isfinite(arguments.at_most or 0) or not math.isfinite(arguments.margin or 0):
        raise ConfigError("--at-most, --margin: should be numbers")
    parsed = grid.parse_overrides(arguments.overrides)
    for override in parsed:
        if override.is_sweep_override():
            grid.check_values(override)
        elif grid.plain_key(override) == grid.PAIRS:
            raise ConfigError("pairs=...: a search has none; give each key its values")
    return parsed


def criterion_of(arguments: argparse.Namespace, config: Config) -> "Criterion":
    """Return what is searched for.

    Raises:
        ConfigError: the limit would be the reference's, and there is none.
    """
    from loku_exp.search.criterion import Criterion

    criterion = Criterion(
        arguments.maximise,
        arguments.constrain,
        arguments.at_most,
        MARGIN if arguments.margin is None else arguments.margin,
        arguments.split_seed,
    )
    if criterion.at_most is None and config.reference.source == "none":
        raise ConfigError(
            f"--constrain {criterion.constrain}: there is no reference to compare with "
            "(reference.source=none); add --at-most NUMBER"
        )
    return criterion


def suite_of(config: Config, criterion: "Criterion") -> "Suite":
    """Return the suite that judges the runs.

    Raises:
        ConfigError: it has no such metric.
    """
    from loku_exp.evaluation.catalogue import by_name
    from loku_exp.runtime.cache import Cache
    from loku_exp.stages.inputs import load_inputs

    suite = load_inputs(config, Cache(config.cache_dir)).suite
    known = by_name(suite.catalogue)
    asked = {"--maximise": criterion.maximise, "--constrain": criterion.constrain}
    unknown = {option: name for option, name in asked.items() if name not in known}
    if unknown:
        raise ConfigError(
            [
                f"{option} {name}: the suite of dataset {config.dataset.label} has no such metric"
                f"{nearest(name, known)}; it has {', '.join(known)}"
                for option, name in unknown.items()
            ]
        )
    return suite
