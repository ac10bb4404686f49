"""What a sweep consists of: the product of all values given, crossed with what goes together.

Two sources are joined, as Hydra does: the preset's ``hydra.sweeper.params`` and the command line, which
wins. ``pairs`` adds what a product cannot say: entries of keys that belong together.
"""

import itertools
import math
import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from loku_exp.errors import ConfigError

Overrides = list[str]
PAIRS = "pairs"
PAIRS_FORM = "pairs=[{init: vanilla, lora.rank: 8}, {lora: none, init: none}]"
PLAIN = re.compile(r"[A-Za-z_][\w./-]*")  # read back as the same text, unless it is a word of YAML
WORDS = ("null", "true", "false", "nan", "inf")


def parse_overrides(overrides: Overrides) -> list[Override]:
    """Read overrides in Hydra's syntax.

    Raises:
        ConfigError: one of them cannot be read.
    """
    parser = OverridesParser.create()
    parsed, problems = [], []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            key, _, value = text.partition("=")
            quoted = f"'{key}=\"{value}\"'"
            reason = str(error).splitlines()[0]
            problems.append(
                f"{text}: {reason}; a value with special characters is quoted: {quoted}"
            )
    if problems:
        raise ConfigError(problems)
    return parsed


def expand(overrides: Overrides, params: dict[str, Any], pairs: Any) -> list[Overrides]:
    """Return the overrides of each job, the last key varying fastest and pairs slowest.

    Args:
        overrides: of the command line, with sweeps.
        params: grid of a preset: key to values, as ``hydra.sweeper.params`` has it.
        pairs: of a preset: entries of keys that go together; those of the command line win, over a preset's
            grid of these keys too.

    Raises:
        ConfigError: something cannot be read, or a key stands both in the grid and in pairs.
    """
    values: dict[str, list[str]] = {}
    of_preset = [f"{key}={value}" for key, value in params.items()]
    for override in parse_overrides([*of_preset, *overrides]):
        key = plain_key(override)
        if key == PAIRS:
            pairs = override.value()
        else:
            values[key] = values_of(override)
    entries = _entries(pairs)
    typed = {plain_key(override) for override in parse_overrides(overrides)}
    if PAIRS in typed:
        paired = {key for entry in entries for key in entry}
        values = {k: v for k, v in values.items() if k in typed or k not in paired}
    twice = sorted({key for entry in entries for key in entry} & values.keys())
    if twice:
        raise ConfigError(
            [f"{key}: given in pairs and beside them; remove one of the two" for key in twice]
        )
    together = [[f"{key}={_text(value)}" for key, value in entry.items()] for entry in entries]
    return [
        [*(override for override in chosen), *entry]
        for entry in together or [[]]
        for chosen in itertools.product(*values.values())
    ]


def job_label(job: Overrides, jobs: list[Overrides]) -> str:
    """Return what distinguishes a job from the others of its sweep; all of it for a single one."""
    common = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set()
    return " ".join(override for override in job if override not in common)


def check_values(override: Override) -> None:
    """Check that several values of a key can be listed, or drawn from.

    Raises:
        ConfigError: they cannot.
    """
    value, key, text = override.value(), override.get_key_element(), override.input_line
    if isinstance(value, Glob):
        raise ConfigError(f"{text}: name the values instead: {key}=a,b")
    if isinstance(value, RangeSweep) and not value.step:
        raise ConfigError(f"{text}: a range needs a step other than 0: {key}=range(4,9,1)")
    if isinstance(value, RangeSweep) and not list(value.range()):
        raise ConfigError(f"{text}: no value lies in it; write {key}=range(FIRST,BEYOND,STEP)")
    if isinstance(value, IntervalSweep):
        low, high = float(value.start or 0), float(value.end or 0)
        if not low < high:
            raise ConfigError(
                f"{text}: the first end must be the lower one: {key}=interval(LOW,HIGH)"
            )
        if "log" in value.tags and low <= 0:
            raise ConfigError(f"{text}: on a logarithmic scale the lower end must be above 0")


def plain_key(override: Override) -> str:
    """Return the key of an override, without the ``+`` that adds it where it is absent."""
    return override.get_key_element().lstrip("+")


def values_of(override: Override) -> list[str]:
    """Return an override for each of its values.

    Raises:
        ConfigError: they cannot be listed.
    """
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    check_values(override)
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: an interval is for a search (python -m loku_exp.search); a sweep "
            f"needs values: {key}=a,b"
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _entries(pairs: Any) -> list[dict[str, Any]]:
    if not pairs:
        return []
    if not isinstance(pairs, list) or not all(isinstance(entry, dict) for entry in pairs):
        raise ConfigError(f"pairs={pairs}: not a list of entries; write '{PAIRS_FORM}'")
    return [{_key(key): value for key, value in entry.items()} for entry in pairs]


def _key(key: Any) -> str:
    return str(getattr(key, "text", key))  # quoted keys come wrapped


def _text(value: Any) -> str:
    """Return a value in Hydra's syntax."""
    value = getattr(value, "text", value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_key(k)}:{_text(v)}" for k, v in value.items()) + "}"
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
