"""Where the yaml lies: our groups and their options, and those of a user's own folder."""

from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError


def conf_dir() -> Path:
    """Return the folder of the yaml files: inside an installed wheel, beside a checkout."""
    package = Path(__file__).parents[1].resolve()
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def config_dir_problems(config_dir: str | None) -> list[str]:
    """Return what is wrong with a user's folder of yaml: that it is not there, or holds names of ours."""
    if config_dir is None:
        return []
    own = Path(config_dir).expanduser()
    if not own.is_dir():
        return [f"--config-dir {config_dir}: no such folder"]
    problems = []
    for file in sorted(own.rglob("*.yaml")):
        place = file.relative_to(own)
        if (conf_dir() / place).is_file():
            problems.append(
                f"{file} would be hidden by {conf_dir() / place}, which has its name; rename it, e.g. to "
                f"{file.with_stem('my_' + file.stem).name}"
            )
        try:
            OmegaConf.load(file)
        except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
            problems.append(f"{file} cannot be read as yaml ({' '.join(str(error).split())[:200]})")
    return problems


def _folders(config_dir: str | None) -> list[Path]:
    return [conf_dir(), *([Path(config_dir).expanduser()] if config_dir else [])]


def groups(config_dir: str | None) -> list[str]:
    """Return the names of all groups, the user's among them."""
    return [p.name for folder in _folders(config_dir) for p in folder.iterdir() if p.is_dir()]


def options_of(group: str, config_dir: str | None) -> list[str]:
    """Return the options of a group, the user's among them."""
    names = {
        path.stem for folder in _folders(config_dir) for path in (folder / group).glob("*.yaml")
    }
    return sorted(names)
