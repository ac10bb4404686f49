"""Where the yaml lies, and a rehearsal of a command line that reports every mistake at once.

Hydra stops at the first mistake. The rehearsal composes the same command line piece by piece, so a
user sees all of them, each with the nearest valid name, before anything is imported or made.
"""

import re
import shlex
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loku_exp.config.groups import conf_dir, config_dir_problems, groups, options_of
from loku_exp.config.rules import parse
from loku_exp.config.schema import Config
from loku_exp.config.unused import unused_problems
from loku_exp.errors import ConfigError, nearest

Overrides = list[str]
# Hydra and OmegaConf raise these for what a user wrote; a few of them are not their own.
SPECIAL = re.compile(r"token recognition error|mismatched input|extraneous|viable|Viable")
COMPOSING = (HydraException, OmegaConfBaseException, ValueError, TypeError, AssertionError)


def register_resolvers() -> None:
    """Make ``${mul:a,b}``, ``${inside:folder,name}`` and ``${paired:key,default}`` known to OmegaConf.

    They are null where a part is missing; a factor that is not a positive number counts as missing.
    `paired` looks up what belongs to a pair of dataset and model, see ``conf/pairing/public.yaml``.
    """

    def mul(a: Any, b: Any) -> Any:
        numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
        return a * b if numbers and a > 0 and b > 0 else None

    def inside(folder: str | None, name: str) -> str | None:
        return f"{folder}/{name}" if folder else None

    def paired(key: str, default: Any, *, _root_: Any) -> Any:
        model, dataset = (OmegaConf.select(_root_, f"{part}.name") for part in ("model", "dataset"))
        for place in ((dataset, model), ("any", model), (dataset, "any")):
            table = _root_.pairing.get(place[0]) if place[0] else None
            pair = table.get(place[1]) if table and place[1] else None
            if pair and key in pair:
                return pair[key]
        return default

    OmegaConf.register_new_resolver("paired", paired, replace=True)
    OmegaConf.register_new_resolver("mul", mul, replace=True)
    OmegaConf.register_new_resolver("inside", inside, replace=True)


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
    problems: list[str] = []
    good: Overrides = []
    try:
        container = _container(overrides, config_dir)
    except COMPOSING:
        # Groups first: a wrong model=... should not make its dataset's keys look wrong too.
        for override in sorted(overrides, key=lambda text: "." in text.split("=")[0]):
            try:
                container = _container([*good, override], config_dir)
                good.append(override)
            except COMPOSING as error:
                problems.append(_explain(override, error, good, config_dir))
                refused.append(override)
        container = _container(good, config_dir)
    try:
        config = parse(container)
        problems += _foreign(overrides, config_dir) if not problems else []
        return config, problems + unused_problems(overrides, config)
    except ConfigError as error:
        given = {override.lstrip("+~").partition("=")[0] for override in refused}
        found = [text for text in error.problems if re.split("[: ]", text)[0] not in given]
        return None, problems + [_with_choices(problem, config_dir) for problem in found]


def _foreign(overrides: Overrides, config_dir: str | None) -> list[str]:
    """Return which keys a plus brings into a section whose option has them not, though others do."""
    found = []
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if override[0] == "+" and re.fullmatch(r"(launcher|tracking)\.\w+", key):
            others = [text for text in overrides if text != override]
            if key not in _keys(_container(others, config_dir)):
                found.append(f"{key}: no such key{_of_others(key, others, config_dir)}")
    return found


def _container(overrides: Overrides, config_dir: str | None) -> dict[str, Any]:
    container: Any = OmegaConf.to_container(composed_from(overrides, config_dir), resolve=True)
    return container


def composed_from(overrides: Overrides, config_dir: str | None, **options: Any) -> Any:
    """Return what Hydra composes of overrides, unchecked."""
    register_resolvers()
    GlobalHydra.instance().clear()
    Plugins.instance()
    search = (
        [f"hydra.searchpath=[{quoted(f'file://{Path(config_dir).expanduser().resolve()}')}]"]
        if config_dir
        else []
    )
    with initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="loku_exp"):
        return compose("config", overrides=[*search, *overrides], **options)


def quoted(text: str) -> str:
    """Return a text as Hydra reads it, whatever its characters.

    Of backslashes it takes only those before a quote in pairs.
    """
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), text)
    return f'"{escaped}"'


def _explain(override: str, error: Exception, good: Overrides, config_dir: str | None) -> str:
    """Return one line for an override that Hydra refuses, with the nearest valid name."""
    key, equals, value = override.lstrip("+~").partition("=")
    if not key or (not equals and not override.startswith("~")):
        return f"{override}: not key=value" + (f"; write {key}=..." if key else "")
    if override.startswith("~"):
        return f"{override}: it cannot be left out; give it another value: {key}=..."
    inside = str(getattr(error.__cause__, "full_key", None) or "")
    if inside.startswith(f"{key}."):  # key={of a section:...}
        return f"{inside}: no such key{nearest(inside, _keys(_container(good, config_dir)))}"
    options = options_of(key, config_dir)
    if options and value not in options:
        hint = nearest(value, options)
        return f"{key}={value}: no such {key}; choose one of {', '.join(options)}{hint}"
    if "ambiguous" in str(error).lower():
        return f"{override}: several values make a sweep; add -m (--multirun)"
    if SPECIAL.search(str(error)):
        typed = shlex.quote(f"{key}={quoted(value)}")
        return f"{override}: its value has special characters; write it quoted: {typed}"
    if "HydraConfig was not set" in str(error):
        return (
            f"{override}: ${{hydra:...}} has no value here; a path without a leading / is of the working "
            "directory, and ${oc.env:NAME} is a variable of the environment"
        )
    valid = list(_keys(_container(good, config_dir)))
    if key not in valid and re.fullmatch(r"[\w.@/]+", key):
        hint = _of_others(key, good, config_dir) or nearest(key, [*valid, *groups(config_dir)])
        return f"{key}: no such key{hint}"
    return f"{override}: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _of_others(key: str, good: Overrides, config_dir: str | None) -> str:
    """Return which options of its group have a key that what is chosen lacks; empty where none has."""
    group, _, inside = key.partition(".")
    others = [override for override in good if override.partition("=")[0] != group]
    have = []
    for option in options_of(group, config_dir) if inside else []:
        choice = f"{group}=[{option}]" if group == "attacks" else f"{group}={option}"
        try:
            if key in _keys(_container([*others, choice], config_dir)):
                have.append(choice)
        except COMPOSING:
            continue
    return f" here; it belongs to {' | '.join(have)}" if have else ""


def _with_choices(problem: str, config_dir: str | None) -> str:
    """Add the options to the complaint about a group that was not chosen."""
    key, _, complaint = problem.partition(": ")
    options = options_of(key, config_dir) if complaint.startswith("not set") else []
    return f"{key}: not chosen; add {key}={' | '.join(options)}" if options else problem


def _keys(node: Any, prefix: str = "") -> Any:
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
