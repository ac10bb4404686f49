"""What a command line asks for: one run, or the runs of a sweep."""

import argparse
import logging
import re
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from loku_exp.config import grid
from loku_exp.config.compose import check_composes
from loku_exp.config.composing import COMPOSING, Overrides, composed_from
from loku_exp.errors import ConfigError
from loku_exp.runtime.programs import add_debug

log = logging.getLogger(__name__)
# Hydra's own machinery for sweeps, which is not used here, and what to write instead.
INSTEAD = {
    "hydra/launcher": "launcher=processes | gpus | slurm",
    "hydra.launcher": "launcher=processes | gpus | slurm, and launcher.<key>=...",
    "hydra/sweeper": "python -m loku_exp.search for a search",
    "hydra.sweeper": "key=a,b for values, pairs=[...] for what goes together",
    "hydra.sweep": "output_dir=...",
    "hydra.run": "output_dir=...",
}
READ_OF_HYDRA = ("hydra.sweeper.params", "hydra.searchpath")
# Options that Hydra answers, one a command line.
RUN = ("--run", "-r")
NOT_HERE = (
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--package",
    "-p",
    "--experimental-rerun",
)
OVERRIDE = re.compile(r"[+~]*[\w.@/]+=|~\w")
OF_GRID = re.compile(rf"[+~]*(experiment|{grid.PAIRS}|hydra\.sweeper\.params)\b")
ALONE = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


@dataclass(frozen=True)
class CommandLine:
    """What a command line asks for.

    Attributes:
        overrides: groups and keys, as typed.
        multirun: whether they span a sweep.
        config_dir: a folder of the user's own yaml.
    """

    overrides: Overrides
    multirun: bool
    config_dir: str | None

    def jobs(self) -> list[Overrides]:
        """Return the overrides of each job.

        Raises:
            ConfigError: an override cannot be read, or belongs to Hydra's own sweeps.
        """
        if not self.multirun:
            keys = [override.partition("=")[0].lstrip("+") for override in self.overrides]
            if grid.PAIRS in keys:
                raise ConfigError("pairs=...: several values make a sweep; add -m (--multirun)")
            _check_own_sweeps(keys)
            _warn_of_repeats(keys)
            presets = [text for text in self.overrides if text.startswith("experiment=")]
            if presets and any(_preset_grid(self.overrides, self.config_dir)):
                log.warning("%s spans a sweep; without -m it is one run", presets[-1])
            return [self.overrides]
        parsed = grid.parse_overrides(self.overrides)
        keys = [grid.plain_key(override) for override in parsed]
        _check_own_sweeps(keys)
        _warn_of_repeats(keys)
        fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
        for override in parsed:
            if override.get_key_element() == "experiment" and override.is_sweep_override():
                self._check_no_grid(grid.values_of(override))
        params, pairs = _preset_grid(fixed, self.config_dir)
        return grid.expand(self.overrides, params, pairs)

    def _check_no_grid(self, presets: list[str]) -> None:
        """Check that presets that are swept over span no sweeps themselves."""
        for preset in presets:
            if any(_preset_grid([preset], self.config_dir)):
                raise ConfigError(
                    f"{preset}: it has a grid of its own, so it cannot be one value of a sweep; "
                    "give each such preset its own command"
                )


def read_command_line(arguments: list[str]) -> CommandLine | None:
    """Return what a command line asks for; None where Hydra is to answer (``--help``, ``--cfg``).

    Raises:
        ConfigError: it asks for two things at once.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    add_debug(parser)
    parser.add_argument("overrides", nargs="*")
    arguments = [text for text in arguments if text not in RUN]  # which is what happens anyway
    known, other = parser.parse_known_intermixed_args(arguments)
    foreign = [text for text in other if text.split("=")[0] in NOT_HERE]
    if foreign and "--cfg" not in other and "-c" not in other:
        raise ConfigError(f"{foreign[0]}: not used here; yaml of your own: --config-dir DIR")
    asked = [text.split("=")[0] for text in other if text.split("=")[0] in ALONE]
    asked += ["--multirun"] if known.multirun else []
    if len(asked) > 1:
        raise ConfigError(f"{' '.join(asked)}: one of these at a time; leave out all but one")
    return None if other else CommandLine(known.overrides, known.multirun, known.config_dir)


def for_hydra(arguments: list[str]) -> list[str]:
    """Return arguments as Hydra reads them: without ours, and no option between overrides."""
    known = [text for text in arguments if text != "--debug"]
    return sorted(known, key=lambda text: bool(OVERRIDE.match(text)))


def check_asked_of_hydra(arguments: list[str]) -> None:
    """Check the overrides of a line that Hydra answers, by which it would end in words of its own.

    Raises:
        ConfigError: with every override that it refuses.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--config-dir", "-cd"), ("--cfg", "-c"), ("--package", "-p"):
        parser.add_argument(*option)
    parser.add_argument("--info", "-i", nargs="?")
    parser.add_argument("overrides", nargs="*")
    known, other = parser.parse_known_intermixed_args(arguments)
    if not {"--shell-completion", "-sc"} & set(other):
        check_composes(known.overrides, known.config_dir)


def _check_own_sweeps(keys: list[str]) -> None:
    problems = []
    for key in keys:
        plain = key.lstrip("+~")
        instead = [text for prefix, text in INSTEAD.items() if f"{plain}.".startswith(f"{prefix}.")]
        if not re.match(r"hydra[./]", plain) or plain.startswith(READ_OF_HYDRA):
            continue
        if instead:
            said = f"folders and sweeps are loku_exp's own, not Hydra's; use {instead[0]}"
        else:
            said = "nothing of a run reads this setting of Hydra's; remove it"
        problems.append(f"{key}: {said}")
    if problems:
        raise ConfigError(problems)


def _warn_of_repeats(keys: list[str]) -> None:
    for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
        log.warning("%s is given more than once; the last of them counts", key)


def _preset_grid(overrides: Overrides, config_dir: str | None) -> tuple[dict[str, Any], Any]:
    """Return grid and pairs that presets bring; none where composing fails, which a rehearsal explains."""
    of_grid = [text for text in overrides if OF_GRID.match(text)]
    try:
        composed = composed_from(overrides, config_dir, return_hydra_config=True)
    except COMPOSING:  # a key may be there only with a value that is swept over
        return _preset_grid(of_grid, config_dir) if of_grid != overrides else ({}, [])
    params = OmegaConf.select(composed, "hydra.sweeper.params") or {}
    pairs = composed.get(grid.PAIRS)  # which a user may have deleted
    return dict(params), OmegaConf.to_container(pairs) if OmegaConf.is_config(pairs) else pairs
