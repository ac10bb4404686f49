"""The configuration of a finished run, read back from its folder."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from loku_exp.config.compose import compose_attacks
from loku_exp.config.rules import parse
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, UserError

CONFIG_FILE = "config.yaml"


def with_attacks(folder: Path, attacks: list[str], config_dir: str | None) -> Config:
    """Return a run's configuration with further attacks.

    Args:
        folder: of a finished run.
        attacks: names, and overrides of their keys.
        config_dir: a folder of the user's own yaml.

    Raises:
        UserError: it is no finished run, or an attack has no such name or key.
    """
    content = saved(folder)
    names = [text for text in attacks if "=" not in text]
    foreign = [text for text in attacks if "=" in text and not text.startswith("attacks.")]
    if foreign:
        raise ConfigError(
            f"{foreign[0]}: only attacks are added to a run; keys of theirs are attacks.<name>.<key>=..."
        )
    if not names:
        raise ConfigError("no attack named; e.g. python -m loku_exp.attack RUN relearn")
    rates = content["model"]["learning_rates"]
    overrides = [text for text in attacks if "=" in text]
    added = compose_attacks(names, overrides, rates, config_dir)
    for name, node in added.items():
        earlier = content["attacks"].get(name)
        if earlier is not None and earlier != node:
            raise ConfigError(
                f"attacks.{name}: this run has it with other settings ({earlier}); copy its yaml under "
                "another name for a second one"
            )
    content["attacks"] |= added
    content["tracking"] = {"name": "none"}
    return parse(content)


def saved(folder: Path) -> dict[str, Any]:
    """Return a run's resolved configuration as plain data, its results where they are now.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    file = folder / CONFIG_FILE
    if not (folder / "done.json").is_file():
        reason = "is not finished" if file.is_file() else "is no folder of a run"
        raise UserError(f"{folder} {reason}: it has no done.json; run its command to the end first")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{file} cannot be read ({' '.join(str(error).split())[:200]})") from error
    content["output_dir"] = str(folder.parent)
    return dict(content)
