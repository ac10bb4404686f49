"""The configuration of a finished run, read back from its folder."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from loku_exp.config.compose import compose_attacks
from loku_exp.config.rules import parse
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, UserError
from loku_exp.runtime.finished import check_unchanged, is_done

CONFIG_FILE, METRICS_FILE = "config.yaml", "metrics.json"
OF_MACHINE = ("device", "threads", "cache_dir")  # change no identity


def with_attacks(folder: Path, attacks: list[str], config_dir: str | None) -> Config:
    """Return a run's configuration with further attacks.

    Args:
        folder: of a finished run.
        attacks: names, and overrides of their keys, or of `OF_MACHINE`.
        config_dir: a folder of the user's own yaml.

    Raises:
        UserError: it is no finished run, or an attack has no such name or key.
    """
    content = saved(folder)
    names = [text for text in attacks if "=" not in text]
    given = [text.partition("=") for text in attacks if "=" in text]
    foreign = [key for key, *_ in given if not key.startswith("attacks.") and key not in OF_MACHINE]
    if foreign:
        raise ConfigError(
            f"{foreign[0]}: only attacks are added to a run; keys of theirs are attacks.<name>.<key>=..., "
            f"beside {', '.join(OF_MACHINE)}"
        )
    if not names:
        raise ConfigError("no attack named; e.g. python -m loku_exp.attack RUN relearn")
    overrides = [text for text in attacks if text.startswith("attacks.") and "=" in text]
    added = compose_attacks(names, overrides, content, config_dir)
    content["attacks"] = _joined(content["attacks"], added)
    content["tracking"] = {"name": "none"}
    content |= {key: _unquoted(value) for key, _, value in given if key in OF_MACHINE}
    return parse(content)


def _unquoted(value: str) -> str:
    """Return a value without the quotes that the main command takes around it."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def keep_attacks(config: Config, folder: Path) -> Config:
    """Return a configuration with the attacks that its run has already, where it is finished.

    Raises:
        UserError: one of them has other settings now, or the folder's configuration cannot be read.
    """
    if not is_done(folder):
        return config
    earlier = saved(folder)["attacks"]
    content = config.model_dump(mode="json", by_alias=True)
    return parse(content | {"attacks": _joined(earlier, content["attacks"])})


def _joined(earlier: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    for name, node in added.items():
        if earlier.get(name, node) != node:
            old = ", ".join(f"{k}={v}" for k, v in earlier[name].items() if node.get(k) != v)
            raise ConfigError(
                f"attacks.{name}: this run has it with other settings ({old}); copy its yaml under another "
                "name for a second one"
            )
    return earlier | added


def saved(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration as plain data, its results where they are now.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    file = folder / CONFIG_FILE
    if not is_done(folder):
        reason = "is not finished" if file.is_file() else "is no folder of a run"
        raise UserError(f"{folder} {reason}: it has no done.json; run its command to the end first")
    check_unchanged(file, folder)
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} cannot be read ({said}); run its command again with force=true"
        ) from error
    made = _attacks_made(folder)
    attacks = {
        name: node for name, node in content["attacks"].items() if made is None or name in made
    }
    return dict(content) | {"output_dir": str(folder.parent), "attacks": attacks}


def _attacks_made(folder: Path) -> set[str] | None:
    """Return the attacks that a run's results have; None where they cannot be read, which others say."""
    try:
        check_unchanged(folder / METRICS_FILE, folder)
        models = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))["models"]
        return {name.partition("+")[2] for name in models}
    except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError):
        return None
