"""The runs under a folder: finished, unfinished, damaged; and which of them are wanted."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from loku_exp.errors import UserError, nearest
from loku_exp.results import files as results
from loku_exp.results.folder import run_folders
from loku_exp.results.schema import Record
from loku_exp.runtime.finished import DONE, check_unchanged
from loku_exp.runtime.knobs import LATER_KNOBS

CONFIG_FILE, LOG_FILE = "config.yaml", "run.log"
STOPPED = "the run stopped here"  # what a failed run's log ends with, before the traceback
LOGGED = re.compile(r"\d{4}-\d\d-\d\d ")  # how a message in it begins


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where its files are.
        record: its ``metrics.json``.
        config: its ``config.yaml`` with dotted keys; empty where that file is absent or damaged.
    """

    folder: Path
    record: Record
    config: dict[str, Any]

    @cached_property
    def keys(self) -> dict[str, Any]:
        """What filters select by: the record's choices, seed and forget split."""
        record = self.record
        split = record.protocol.get("forget_split")
        return record.run.choices | {"seed": record.run.seed, "forget_split": split}

    @property
    def success(self) -> bool | None:
        """Whether it forgot and kept, as its suite judges; None where that cannot be said."""
        return self.record.judgement.success if self.record.judgement else None

    @property
    def collapsed(self) -> bool:
        """Whether its model is broken."""
        return bool(self.record.judgement and self.record.judgement.collapsed)


@dataclass(frozen=True)
class Collection:
    """What lies under a folder.

    Attributes:
        runs: finished ones, by folder.
        unfinished: folder and what is known of its state.
        damaged: what is wrong with a finished run's record, naming its file.
    """

    runs: list[Run]
    unfinished: list[tuple[Path, str]]
    damaged: list[str]


def collect(root: Path) -> Collection:
    """Find the runs under a folder, or the one it is.

    Raises:
        UserError: there is no such folder, or no finished run that can be read.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the folder that holds run folders")
    found = Collection([], [], [])
    for folder in run_folders(root):
        if not (folder / DONE).is_file():
            found.unfinished.append((folder, _state(folder)))
            continue
        try:
            record = results.read(folder)
            check_unchanged(folder / CONFIG_FILE, folder)
        except UserError as error:
            found.damaged.append(" ".join(str(error).split()))
        else:
            found.runs.append(Run(folder, record, _config(folder)))
    if not found.runs:
        beside = f"{len(found.unfinished)} unfinished, {len(found.damaged)} damaged"
        raise UserError(
            f"{root}: no finished run here ({beside}); a finished one has {DONE} and "
            f"{results.METRICS_FILE}" + "".join(f"; {text}" for text in found.damaged[:3])
        )
    return found


def newest_of(runs: list[Run]) -> list[Run]:
    """Return the runs that count, by folder: of one computation that was repeated the newest."""
    newest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.record.run.started):
        newest[run.record.run.id] = run
    return sorted(newest.values(), key=lambda run: str(run.folder))


def select(runs: list[Run], filters: list[str]) -> list[Run]:
    """Return the runs that every filter ``key=value[,value]`` lets through.

    Raises:
        UserError: an unknown key, one given twice, a value that no run has, or nothing left.
    """
    wanted = {}
    for text in filters:
        key, _, values = text.partition("=")
        if key in wanted:
            raise UserError(
                f"{text}: {key} is given twice; give several values by comma: {key}=A,B"
            )
        known = {str(run.keys[key]) for run in runs if key in run.keys}
        if not known:
            keys = sorted({name for run in runs for name in run.keys})
            raise UserError(
                f"{text}: no run has a choice '{key}'{nearest(key, keys)} (there are {', '.join(keys)})"
            )
        wanted[key] = [_spelled(value) for value in values.split(",")]
        for value in wanted[key]:
            if value not in known:
                raise UserError(
                    f"{key}={value}: no run has it{nearest(value, known)} (there are "
                    f"{', '.join(sorted(known))})"
                )
    kept = [
        run
        for run in runs
        if all(key in run.keys and str(run.keys[key]) in values for key, values in wanted.items())
    ]
    if not kept:
        raise UserError(f"no run has all of {' '.join(filters)}; leave a filter out")
    return kept


def _spelled(value: str) -> str:
    """Return a value as the record's choices spell it; yaml's null is None there."""
    return "None" if value in ("null", "none", "None") else value


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(folder / CONFIG_FILE))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return {}
    if not isinstance(content, dict):
        return {}
    flat = _dotted(content)
    for part in ("loss", "dataset"):
        later = LATER_KNOBS.get(flat.get(f"{part}._target_", ""), {})
        flat = {f"{part}.{knob}": value for knob, value in later.items()} | flat
    return flat


def _dotted(content: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _state(folder: Path) -> str:
    """Return how far a run without ``done.json`` came."""
    steps = sorted(path.name for path in folder.glob("snapshots/step-*"))
    so_far = f"newest snapshot {steps[-1]}" if steps else "no snapshot yet"
    try:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, ValueError):
        lines = []
    last = max((n for n, line in enumerate(lines) if STOPPED in line), default=len(lines))
    went_on = any(LOGGED.match(line) for line in lines[last + 1 :])  # taken up again since
    if last < len(lines) and not went_on:
        return f"failed ({lines[-1].strip()[:200]}), {so_far}"
    return f"running or interrupted, {so_far}"
