"""Which folder a run has: named by what it computes, finished or not."""

import importlib.metadata
import logging
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from loku_exp import __version__
from loku_exp.config.schema import Config
from loku_exp.errors import HeldError, UserError
from loku_exp.models import identity
from loku_exp.results.files import DONE
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.cache import digest, write_text
from loku_exp.runtime.events import Begun, Finished, tell
from loku_exp.stages.inputs import Materials

log = logging.getLogger(__name__)
LOCK = ".lock"
NOT_IDENTITY = {"output_dir", "cache_dir", "force", "device", "threads", "parallel", "tracking"}
NOT_IDENTITY |= {"launcher", "on_error", "pairs"}  # of a sweep, not of its runs
RUN_FORMAT = 4  # raise by hand whenever the numbers of an unchanged configuration change
PACKAGES = ("torch", "transformers", "peft", "lm_eval", "datasets", "hydra-core", "scipy")


def check_places(config: Config) -> None:
    """Check, without making anything, that results and cache can be written.

    Raises:
        UserError: one of them cannot.
    """
    for key in ("output_dir", "cache_dir"):
        folder = Path(getattr(config, key)).expanduser().absolute()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise UserError(f"{key}={folder}: {existing} is not a folder that can be written to")


def run_id(config: Config, materials: Materials) -> str:
    """Return 12 hex digits: the same for the same computation, wherever its inputs lie.

    Paths of models and data are replaced by what is in them; folders, device and threads are left
    out. The code's version enters through `RUN_FORMAT` alone, a user's own functions by their source.
    """
    content = config.model_dump(mode="json", by_alias=True, exclude=NOT_IDENTITY)
    content["format"] = RUN_FORMAT
    if content["init"] is not None:
        content["init"].pop("fisher_pass", None)  # the same numbers by another way
    content["dataset"].pop("path", None)
    content["dataset"]["data"] = materials.corpus.digest()
    content["model"]["tokenizer"] = materials.tokenizer_digest
    for place in ("data_dir", "texts_dir", "include_path"):
        content["evaluation"].pop(place, None)
    content["evaluation"]["data"] = materials.ability_digest
    content["code"] = identity.own_code(config.own_functions())
    if config.model.weights == "random":  # neither of these is read
        content["target"]["path"] = content["reference"]["path"] = None
    for section in ("model", "target", "reference"):
        path = content[section]["path"]
        if not path or (section == "model" and config.model.weights != "pretrained"):
            continue
        if section == "reference" and config.reference.source == "log":
            content[section]["path"] = digest(Path(path).expanduser().read_text())
        else:
            key = f"{section}.path"
            content[section]["path"] = identity.weights_digest(path, key, config.model)
    return digest(content, length=12)


def run_folder(config: Config, run: str) -> Path:
    """Return the run's folder, which may not be there yet; with ``force`` a new one beside it."""
    rank = f"r{config.lora.rank}" if config.lora.enabled else "full"
    parts = [config.model.name, config.dataset.label]
    if config.unlearn:
        parts += [config.loss.name, config.init.name if config.init else "", rank]
    else:
        parts += ["evaluation"]
    name = "-".join([part for part in parts if part] + [run])
    folder = Path(config.output_dir).expanduser() / name
    count = 1
    while config.force and (folder / DONE).exists():
        count += 1
        folder = folder.with_name(f"{name}-r{count}")
    return folder


def is_done(folder: Path) -> bool:
    """Return whether a run finished; this file is written last."""
    return (folder / DONE).is_file()


def mark_done(folder: Path, run: str) -> None:
    """Mark a run as finished."""
    write_text(folder / DONE, f'{{"id": "{run}"}}\n')
    tell(Finished(folder))


def provenance() -> dict[str, Any]:
    """Return commit, version, packages and hardware of this run."""
    return {
        "commit": _commit(),
        "version": __version__,
        "format": RUN_FORMAT,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processes": parallel.size(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _commit() -> str | None:
    """Return the commit of this checkout, marked where files differ from it; None in a wheel."""
    folder = Path(__file__).parents[1]
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", __file__], capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip() if tracked.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a run's folder, and hold it for this process.

    Raises:
        HeldError: another process works in it, or has finished it a moment ago.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=1)  # longer than `is_held` holds it
    try:
        lock.acquire()
    except Timeout:
        raise HeldError(f"another process is working on this run in {folder}") from None
    try:
        if is_done(folder):
            raise HeldError(f"another process has just finished this run; it is in {folder}")
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Return whether a process works on a run; without a claim of one's own."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def begin(folder: Path, config: Config) -> None:
    """Write the resolved configuration; warn where another version of the code began this run."""
    composed = OmegaConf.create(config.model_dump(mode="json", by_alias=True))
    write_text(folder / "config.yaml", OmegaConf.to_yaml(composed))
    file, commit = folder / "commit", str(_commit())
    if file.is_file() and file.read_text().strip() != commit:
        log.warning("begun at commit %s, going on at %s", file.read_text().strip(), commit)
    write_text(file, f"{commit}\n")
    tell(Begun(folder, config))
