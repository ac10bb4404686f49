"""What is asked of a search: read, and checked before its first trial."""

import argparse
import math
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import Override

from loku_exp.config import grid
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from loku_exp.evaluation.suite import Suite
    from loku_exp.search.criterion import Criterion

MARGIN = 0.05


def overrides_read(arguments: argparse.Namespace) -> list[Override]:
    """Return the overrides, read.

    Raises:
        ConfigError: they or the options ask for what cannot be.
    """
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
        elif override.get_key_element() == grid.PAIRS:
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
