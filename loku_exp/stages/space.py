"""Whether there is room on the disk for what a run, or a sweep, writes, seen before it begins.

Counted is what is certain: weights, adapters, snapshots. So a run that passes can still find no room, for
answers, or because others write too; then the file is named, and the same command goes on.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError
from loku_exp.methods.adapter import Adapter
from loku_exp.models import load as models
from loku_exp.results import files
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.sizes import size_in_words
from loku_exp.stages.earlier import fold_recipe
from loku_exp.stages.finetuning import training_recipe
from loku_exp.stages.identity import run_folder, run_id
from loku_exp.stages.inputs import Inputs
from loku_exp.stages.weights import trained_here
from loku_exp.training.schedule import Plan

RECORD = 2**20  # answers, log and record of the smallest run
PARAMETER, MOMENTS = (
    4,
    8,
)  # bytes: trained parameters are fp32, and the optimiser has two numbers of each


class Need(NamedTuple):
    """What is going to be written.

    Attributes:
        key: of the configuration, that names the folder.
        folder: it names.
        place: of what is written; several runs that write one cache entry write it once.
        size: in bytes.
        what: in words.
    """

    key: str
    folder: Path
    place: Path
    size: int
    what: str


def space_needs(config: Config, inputs: Inputs, adapter: Adapter | None) -> list[Need]:
    """Return what a run is going to write.

    Args:
        config: resolved for this machine.
        inputs: of the run.
        adapter: its shape, where there is one.
    """
    folder = run_folder(config, run_id(config, inputs))
    if files.has_everything(folder, list(config.attacks)):
        return []
    with torch.device("meta"):
        model = models.from_architecture(config.model, inputs.tokenizer)
    return [
        *_bases(config, inputs, model.num_parameters()),
        *_results(config, inputs, folder, model, adapter),
    ]


def check_space(needs: Iterable[Need], runs: int = 1) -> None:
    """Check that every disk has room for what is going to be written.

    Args:
        needs: of one run, or of all of a sweep.
        runs: how many there are.

    Raises:
        ConfigError: with a line for each disk that has not.
    """
    disks: dict[int, list[Need]] = defaultdict(list)
    for need in dict.fromkeys(needs):
        disks[os.stat(existing(need.folder)).st_dev].append(need)
    who = "the run writes" if runs == 1 else f"the {runs} runs of this sweep together write"
    fewer = "" if runs == 1 else ", or sweep over fewer values"
    found = []
    for of_disk in disks.values():
        free = shutil.disk_usage(existing(of_disk[0].folder)).free
        sizes: dict[str, int] = defaultdict(int)
        for need in of_disk:
            sizes[need.what] += need.size
        needed = sum(sizes.values())
        if needed > free:
            folders = dict.fromkeys(f"{need.key}={need.folder}" for need in of_disk)
            parts = ", ".join(f"{size_in_words(size)} {what}" for what, size in sizes.items())
            found.append(
                f"{' and '.join(folders)}: {size_in_words(free)} are free on this disk, and {who} "
                f"{size_in_words(needed)} or more ({parts}); make "
                f"room, or name a folder on another disk{fewer}"
            )
    if found:
        raise ConfigError(found)


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _bases(config: Config, inputs: Inputs, parameters: int) -> list[Need]:
    """Return what bases that are to be trained here take in the cache."""
    cache = Cache(config.cache_dir)
    root, size = cache.root.absolute(), parameters * getattr(torch, config.model.dtype).itemsize
    recipes = {role: training_recipe(role, config, inputs) for role in trained_here(config)}
    if inputs.earlier is not None and inputs.earlier.kind == "adapter":
        recipes["target"] = fold_recipe(inputs.earlier, config.model)
    return [
        Need("cache_dir", root, cache.path("models", recipe), size, f"of weights ({role})")
        for role, recipe in recipes.items()
        if not cache.has("models", recipe)
    ]


def _results(
    config: Config, inputs: Inputs, folder: Path, model: torch.nn.Module, adapter: Adapter | None
) -> list[Need]:
    """Return what a run takes in its folder: its record, and what it trains unless it has begun to."""
    place = Path(config.output_dir).expanduser().absolute()
    needs = [Need("output_dir", place, folder, RECORD, "of answers and record")]
    begun = (folder / "snapshots").exists()
    if begun or not (config.unlearn and config.uses("recipe")):
        return needs
    layers = adapter.layers(model, seed=0) if adapter else []
    trained = sum(layer.rank * sum(layer.weight.shape) for layer in layers)
    trained = trained if adapter else sum(p.numel() for p in model.parameters())
    recipe = config.training
    kept = len(Plan.of(recipe, len(inputs.records.forget)).snapshot_steps(recipe.snapshot_epochs))
    size = trained * (kept * PARAMETER + min(kept, 2) * MOMENTS)
    needs.append(Need("output_dir", place, folder, size, "of snapshots"))
    each = PARAMETER if adapter else getattr(torch, config.model.dtype).itemsize
    shipped = (
        f"of the {'adapter' if adapter else 'model'}"  # twice that where an init changes weights
    )
    return [*needs, Need("output_dir", place, folder, trained * each, shipped)]
