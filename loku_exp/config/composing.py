"""What Hydra makes of a command line's overrides, as plain data and unchecked."""

import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from loku_exp.config.groups import conf_dir

Overrides = list[str]
# Hydra and OmegaConf raise these for what a user wrote; a few of them are not their own.
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


def container_of(overrides: Overrides, config_dir: str | None) -> dict[str, Any]:
    """Return what overrides compose to, resolved, as plain data."""
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


def keys_of(node: Any, prefix: str = "") -> Any:
    """Yield the keys of nested dictionaries, those inside with a dot."""
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")
