"""What is said of overrides that Hydra refuses: one line each, with the nearest valid name."""

import re
import shlex

from loku_exp.config.composing import COMPOSING, Overrides, container_of, keys_of, quoted
from loku_exp.config.groups import groups, options_of
from loku_exp.errors import nearest

SPECIAL = re.compile(r"token recognition error|mismatched input|extraneous|viable|Viable")


def explain(override: str, error: Exception, good: Overrides, config_dir: str | None) -> str:
    """Return one line for an override that Hydra refuses, with the nearest valid name."""
    key, equals, value = override.lstrip("+~").partition("=")
    if not key or (not equals and not override.startswith("~")):
        return f"{override}: not key=value" + (f"; write {key}=..." if key else "")
    if override.startswith("~"):
        return f"{override}: it cannot be left out; give it another value: {key}=..."
    inside = str(getattr(error.__cause__, "full_key", None) or "")
    if inside.startswith(f"{key}."):  # key={of a section:...}
        return f"{inside}: no such key{nearest(inside, keys_of(container_of(good, config_dir)))}"
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
    valid = list(keys_of(container_of(good, config_dir)))
    if key not in valid and re.fullmatch(r"[\w.@/]+", key):
        hint = _of_others(key, good, config_dir) or _beside(key, valid)
        return f"{key}: no such key{hint or nearest(key, [*valid, *groups(config_dir)])}"
    return f"{override}: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _beside(key: str, valid: list[str]) -> str:
    """Return the nearest key of the same section, or all of them; empty where there is no such section."""
    section = key.rpartition(".")[0]
    there = [k.rpartition(".")[2] for k in valid if section and k.rpartition(".")[0] == section]
    close = nearest(key.rpartition(".")[2], there)
    if close or not there:
        return close.replace("'", f"'{section}.", 1)
    return f"; {section} has {', '.join(there)}"


def _of_others(key: str, good: Overrides, config_dir: str | None) -> str:
    """Return which options of its group have a key that what is chosen lacks; empty where none has."""
    group, _, inside = key.partition(".")
    others = [override for override in good if override.partition("=")[0] != group]
    have = []
    for option in options_of(group, config_dir) if inside else []:
        choice = f"{group}=[{option}]" if group == "attacks" else f"{group}={option}"
        try:
            if key in keys_of(container_of([*others, choice], config_dir)):
                have.append(choice)
        except COMPOSING:
            continue
    return f" here; it belongs to {' | '.join(have)}" if have else ""


def foreign(overrides: Overrides, config_dir: str | None) -> list[str]:
    """Return which keys a plus brings into a section whose option has them not, though others do."""
    found = []
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if override[0] == "+" and re.fullmatch(r"(launcher|tracking)\.\w+", key):
            others = [text for text in overrides if text != override]
            if key not in keys_of(container_of(others, config_dir)):
                found.append(f"{key}: no such key{_of_others(key, others, config_dir)}")
    return found


def with_choices(problem: str, config_dir: str | None) -> str:
    """Add the options to the complaint about a group that was not chosen."""
    key, _, complaint = problem.partition(": ")
    options = options_of(key, config_dir) if complaint.startswith("not set") else []
    return f"{key}: not chosen; add {key}={' | '.join(options)}" if options else problem
