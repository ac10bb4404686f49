"""A rehearsal of a command line that reports every mistake at once.

Hydra stops at the first mistake. The rehearsal composes the same command line piece by piece, so a
user sees all of them, each with the nearest valid name, before anything is imported or made.
"""

import re
from typing import Any

from omegaconf import OmegaConf

from loku_exp.config.complaints import explain, foreign, with_choices
from loku_exp.config.composing import COMPOSING, Overrides, composed_from, container_of
from loku_exp.config.groups import config_dir_problems
from loku_exp.config.rules import parse
from loku_exp.config.schema import Config
from loku_exp.config.unused import unused_problems
from loku_exp.errors import ConfigError


def compose_config(overrides: Overrides, config_dir: str | None = None) -> Config:
    """Compose and parse one configuration; for tests and other programs.

    Raises:
        ConfigError: with every problem of the command line and of the configuration.
    """
    (config,) = compose_all([overrides], config_dir)
    return config


def compose_attacks(
    names: list[str], overrides: Overrides, content: dict[str, Any], config_dir: str | None
) -> dict[str, Any]:
    """Return the nodes of attacks by name, as plain data.

    Args:
        names: of ``conf/attacks``.
        overrides: of their keys.
        content: configuration of the run they are for, which their yaml may refer to.
        config_dir: a folder of the user's own yaml.

    Raises:
        ConfigError: with every problem.
    """
    typed = [f"attacks=[{','.join(names)}]", *overrides]
    compose_config(typed, config_dir)
    nodes = OmegaConf.to_container(composed_from(typed, config_dir).attacks)
    of_run = OmegaConf.create(content | {"attacks": nodes})
    resolved: Any = OmegaConf.to_container(of_run.attacks, resolve=True)
    return dict(resolved)


def compose_all(jobs: list[Overrides], config_dir: str | None = None) -> list[Config]:
    """Compose and parse the configurations of several jobs.

    Raises:
        ConfigError: with every problem of every job; an override that many jobs share is refused once.
    """
    configs, found = [], dict.fromkeys(config_dir_problems(config_dir))
    if found:
        raise ConfigError(list(found))
    refused: Overrides = []
    for job in jobs:
        config, problems = _rehearse(
            [override for override in job if override not in refused], config_dir, refused
        )
        found |= dict.fromkeys(problems)
        configs += [config] if config else []
    if found:
        raise ConfigError(list(found))
    return configs


def rehearse(overrides: Overrides, config_dir: str | None = None) -> list[str]:
    """Return all problems of one job's overrides; an empty list means it can start."""
    return _rehearse(overrides, config_dir, [])[1]


def _rehearse(
    overrides: Overrides, config_dir: str | None, refused: Overrides
) -> tuple[Config | None, list[str]]:
    """Return one job's configuration and its problems; overrides that Hydra refuses go to `refused`."""
    container, complaints = _composed(overrides, config_dir)
    refused += complaints
    problems = list(complaints.values())
    try:
        config = parse(container)
        problems += foreign(overrides, config_dir) if not problems else []
        return config, problems + unused_problems(overrides, config)
    except ConfigError as error:
        given = {override.lstrip("+~").partition("=")[0] for override in refused}
        found = [text for text in error.problems if re.split("[: ]", text)[0] not in given]
        return None, problems + [with_choices(problem, config_dir) for problem in found]


def check_composes(overrides: Overrides, config_dir: str | None = None) -> None:
    """Check that Hydra takes overrides, whatever the values they end in.

    Raises:
        ConfigError: with every one that it refuses.
    """
    found = config_dir_problems(config_dir)
    found = found or list(_composed(overrides, config_dir)[1].values())
    if found:
        raise ConfigError(found)


def _composed(
    overrides: Overrides, config_dir: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what Hydra composes of the overrides it takes, and what is said of each it refuses."""
    complaints: dict[str, str] = {}
    good: Overrides = []
    try:
        return container_of(overrides, config_dir), complaints
    except COMPOSING:
        # Groups first: a wrong model=... should not make its dataset's keys look wrong too.
        for override in sorted(overrides, key=lambda text: "." in text.split("=")[0]):
            try:
                container_of([*good, override], config_dir)
                good.append(override)
            except COMPOSING as error:
                complaints[override] = explain(override, error, good, config_dir)
        return container_of(good, config_dir), complaints
