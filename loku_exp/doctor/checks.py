"""What a machine has and what can run on it: versions, device, memory, hub, cache, models."""

import importlib.metadata
import os
import platform
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.cache.entries import entries_in
from loku_exp.config.composing import composed_from
from loku_exp.config.groups import options_of
from loku_exp.errors import UserError
from loku_exp.models.memory import USABLE, free_memory
from loku_exp.runtime.hub import is_offline, use_cached_files_if_unreachable
from loku_exp.runtime.machine import resolve_autocast, resolve_device, resolve_dtype
from loku_exp.runtime.sizes import size_in_words
from loku_exp.stages.identity import check_place

LIBRARIES = (
    "loku_exp", "torch", "transformers", "peft", "accelerate", "datasets", "lm_eval", "hydra-core", "wandb",
)  # fmt: skip
EXTRAS = {  # by name: the package that comes with it
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "dashboard": "wandb-workspaces",
    "slurm": "submitit",
    "search": "optuna",
    "gguf": "gguf",
}
TRAINED = 16  # bytes a weight in full fine-tuning: fp32 weight, gradient, two moments of AdamW


@dataclass(frozen=True)
class Finding:
    """One line about this machine.

    Attributes:
        part: what it belongs to, e.g. ``versions``.
        name: of what was looked at.
        value: what was found.
        wrong: what to do about it; empty where all is well.
    """

    part: str
    name: str
    value: str
    wrong: str = ""


def examine(cache_dir: Path, output_dir: Path) -> list[Finding]:
    """Return everything that was found, in the order it is shown.

    Args:
        cache_dir: of runs.
        output_dir: of runs.
    """
    found = [*_versions(), *_hardware(), *_places(cache_dir, output_dir), *_services()]
    return [*found, *_models()]


def _versions() -> list[Finding]:
    found = [Finding("versions", "python", platform.python_version())]
    for name in LIBRARIES:
        found.append(Finding("versions", name, _version(name) or "missing", _reinstall(name)))
    for extra, package in EXTRAS.items():
        version = _version(package)
        value = (
            f"{package} {version}" if version else f"not installed: pip install 'loku_exp[{extra}]'"
        )
        found.append(Finding("extras", extra, value))
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _reinstall(package: str) -> str:
    return "" if _version(package) else "pip install --force-reinstall loku_exp"


def _hardware() -> list[Finding]:
    device = resolve_device("auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    products = resolve_autocast("auto", device)
    said = "bfloat16" if products == "bfloat16" else "float32 (no bfloat16 in this hardware)"
    return [
        Finding("machine", "device=auto", f"{device} {name}".strip()),
        Finding("machine", "model.dtype=auto", resolve_dtype("auto", device)),
        Finding("machine", "products in training", said),
        Finding("machine", "cores", str(cores)),
        Finding("machine", "free memory", size_in_words(free_memory(device))),
        Finding("machine", "main memory", size_in_words(psutil.virtual_memory().total)),
    ]


def _places(cache_dir: Path, output_dir: Path) -> list[Finding]:
    found = []
    for key, folder in (("cache_dir", cache_dir), ("output_dir", output_dir)):
        there = next(
            path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
        )
        free = f"{folder}, {size_in_words(shutil.disk_usage(there).free)} free"
        wrong = ""
        try:
            check_place(key, str(folder))
        except UserError as error:
            wrong = str(error)
        found.append(Finding("places", key, free, wrong))
    kept = entries_in(cache_dir) if cache_dir.is_dir() else []
    broken = sum(entry.state == "damaged" for entry in kept)
    value = f"{size_in_words(sum(entry.size for entry in kept))} in {len(kept)} entries"
    command = f"python -m loku_exp.cache --cache-dir {shlex.quote(str(cache_dir))} --state damaged --prune"
    wrong = f"{broken} damaged: {command}" if broken else ""
    return [*found, Finding("places", "cache", value, wrong)]


def _services() -> list[Finding]:
    before = os.environ.get("HF_HUB_OFFLINE")
    use_cached_files_if_unreachable(["owner/name"])
    offline = is_offline()
    if before is None:
        os.environ.pop("HF_HUB_OFFLINE", None)
    else:
        os.environ["HF_HUB_OFFLINE"] = before
    hub = (
        "out of reach: give folders (model.path=DIR, dataset.path=DIR)"
        if offline
        else "can be reached"
    )
    key = os.environ.get("WANDB_API_KEY") or os.path.isfile(os.path.expanduser("~/.netrc"))
    wandb = "a key may be there" if key else "no key: tracking=wandb is offline by itself"
    return [Finding("services", "model hub", hub), Finding("services", "wandb", wandb)]


def _models() -> list[Finding]:
    """Return for each model of the bench whether its weights fit, beside an adapter and trained whole.

    A model whose vocabulary is its data's, or that is the user's own, has no size before.
    """
    device = resolve_device("auto")
    room = USABLE * free_memory(device)
    found = []
    for name in options_of("model", None):
        model = composed_from([f"model={name}"], None).model
        shape: Any = OmegaConf.to_container(model).get("architecture")  # type: ignore[union-attr]
        if not shape or not shape.get("vocab_size"):
            continue
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape))
        parameters = built.num_parameters()
        dtype: torch.dtype = getattr(torch, resolve_dtype(model.dtype, device))
        value = (
            f"{parameters / 1e6:,.0f} M parameters: {_fits(parameters * dtype.itemsize, room)} beside an "
            f"adapter, {_fits(parameters * TRAINED, room)} where all are trained"
        )
        found.append(Finding("models (weights alone)", f"model={name}", value))
    return found


def _fits(size: int, room: float) -> str:
    return f"{size_in_words(size)} {'fit' if size <= room else 'do NOT fit'}"
