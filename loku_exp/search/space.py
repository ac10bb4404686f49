"""What a search draws from: values and intervals as a user writes them, as Optuna's distributions."""

from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna import distributions

from loku_exp.errors import ConfigError

Distribution = (
    distributions.FloatDistribution
    | distributions.IntDistribution
    | distributions.CategoricalDistribution
)


def distribution(override: Override) -> Distribution:
    """Return what Optuna draws a key from, as its values are written.

    Raises:
        ConfigError: they are to be drawn in a way that there is not.
    """
    value: Any = override.value()
    _check_tags(override, value)
    if isinstance(value, IntervalSweep):
        start, end = float(value.start or 0), float(value.end or 0)
        return distributions.FloatDistribution(start, end, log="log" in value.tags)
    if isinstance(value, RangeSweep):
        parts = (value.start or 0, value.stop or 0, value.step)
        drawn = list(value.range())
        if all(isinstance(part, int) for part in parts) and drawn and value.step > 0:
            low, high, step = drawn[0], drawn[-1], int(value.step)
            return distributions.IntDistribution(low, high, log="log" in value.tags, step=step)
    return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))


def _check_tags(override: Override, value: Any) -> None:
    """Check that a tag says something of these values; Hydra lets any word through."""
    text, key = override.input_line, override.get_key_element()
    other = sorted(value.tags - {"log"})
    if other:
        raise ConfigError(
            f"{text}: a search knows no tag '{other[0]}'; there is log, and whole numbers are drawn from "
            f"{key}=range(FIRST,BEYOND,STEP)"
        )
    if "log" not in value.tags or isinstance(value, IntervalSweep):
        return
    parts = (value.start, value.stop, value.step) if isinstance(value, RangeSweep) else (None,)
    whole = all(isinstance(part, int) for part in parts)
    if not (whole and value.step == 1 and value.start > 0):
        raise ConfigError(
            f"{text}: a logarithmic scale has {key}=tag(log,interval(LOW,HIGH)), or whole numbers above 0 "
            f"in steps of 1: {key}=tag(log,range(FIRST,BEYOND))"
        )


def samples(space: dict[str, Distribution]) -> list[dict[str, Any]]:
    """Return settings that show what may be wrong with a space: all choices, both ends, one between."""
    values: dict[str, list[Any]] = {}
    for key, distribution in space.items():
        if isinstance(distribution, distributions.CategoricalDistribution):
            values[key] = list(distribution.choices)
        else:
            low, high = distribution.low, distribution.high
            between = [] if isinstance(low, int) else [low + 0.618 * (high - low)]
            values[key] = [low, high, *between]
    most = max(map(len, values.values()))
    return [{key: v[min(k, len(v) - 1)] for key, v in values.items()} for k in range(most)]


def overrides_of(params: dict[str, Any]) -> list[str]:
    """Return a trial's setting as overrides."""
    return [
        f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in params.items()
    ]
