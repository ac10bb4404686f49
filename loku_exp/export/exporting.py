"""A run's adapter, or its model, with a card, in a folder of its own: whole or not at all."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from loku_exp.errors import UserError
from loku_exp.export.card import card
from loku_exp.export.reshaped import compress, merge
from loku_exp.results import files as results
from loku_exp.results.shipped import base_damage, hand_on_origin, shipped_of
from loku_exp.runtime.cache import MANIFEST, write_folder
from loku_exp.runtime.finished import DONE, is_done
from loku_exp.runtime.hub import expanded


@dataclass(frozen=True)
class Shape:
    """What becomes of an adapter on the way.

    Attributes:
        rank: to compress it to; None: as it is.
        merged: whether it is folded into the weights of its base.
    """

    rank: int | None = None
    merged: bool = False


def export(run: Path, to: Path, base: str | None = None, shape: Shape | None = None) -> str:
    """Write a run's adapter (or model) with its card into a new folder, whole or not at all.

    Args:
        run: folder of a finished run.
        to: must not exist, or be empty.
        base: name of the target; None for where the run had it from.
        shape: what becomes of an adapter on the way; None: nothing.

    Returns:
        ``adapter`` or ``model``.

    Raises:
        UserError: the run is not finished, left nothing to ship, or `to` is taken.
    """
    if not is_done(run):
        reason = "is not finished" if (run / "config.yaml").is_file() else "is no folder of a run"
        raise UserError(f"{run} {reason}: it has no {DONE}; run its command to the end first")
    record = results.read(run)
    kind, shipped, recipe = shipped_of(run, record)
    if record.models["target"].weights == "random":
        raise UserError(f"{run}: its weights are random (model.weights=random), for timing only")
    to = to.expanduser().absolute()
    if to.is_symlink() or run.resolve() in (to.resolve(), *to.resolve().parents):
        raise UserError(
            f"--to {to}: a link, or a place within the run; name a new folder beside it"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: there is something already; name a new folder")
    shape = shape or Shape()
    if kind == "model" and shape != Shape():
        raise UserError(
            f"{run} trained all weights, so there is no adapter to compress or to merge"
        )
    name = base or str(recipe["base"])

    def build(folder: Path) -> None:
        """Fill an empty folder with what is shipped, as it is to be, and its card."""
        for file in shipped.iterdir():
            if file.is_file() and file.name != MANIFEST:
                shutil.copy2(file, folder)
        how = _reshape(folder, shape, recipe, run)
        rank = _name_base(folder, name) if (folder / "adapter_config.json").is_file() else None
        written = card(record, "model" if rank is None else "adapter", name, rank, how)
        (folder / "README.md").write_text(written, encoding="utf-8")
        _share_record(run, folder, name)

    write_folder(to, build, {"run": record.run.id, "base": name})
    return "model" if shape.merged else kind


def _reshape(folder: Path, shape: Shape, recipe: dict[str, Any], run: Path) -> str:
    """Make of an adapter what was asked for; return what the card says of it."""
    if shape.rank is not None:
        before = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        error = compress(folder, shape.rank)
        return (
            f"Here it was compressed from rank {before}; its updates differ from the run's by {error:.1%} "
            "of their norm, and the table below is of the run's."
        )
    if shape.merged:
        base = str(recipe["base"])
        broken = base_damage(recipe)
        if broken is not None:
            raise UserError(f"--merged needs the run's target, {base}, as it was ({broken})")
        config = OmegaConf.load(run / "config.yaml")
        model = config.model
        revision = model.revision if base == model.path else None  # a hub id's, else of no folder
        trusted = bool(model.trust_remote_code)
        own = model.path in (model.tokenizer, None)  # a revision is of its own path, no other's
        given = {"revision": revision, "tokenizer_revision": model.revision if own else None}
        tokenizer = _tokenizer_of(config, base)
        dtype = merge(folder, base, tokenizer, trust_remote_code=trusted, **given)
        hand_on_origin(base, folder)
        return f"Here the adapter was folded into the target's weights in float32, and stored in {dtype}."
    return ""


def _share_record(run: Path, folder: Path, base: str) -> None:
    """Write a run's record for others: the target by its given name, other folders by their last."""
    content = json.loads((run / results.METRICS_FILE).read_text(encoding="utf-8"))
    for name, model in content["models"].items():
        place = model.get("path")
        if place and Path(place).expanduser().is_absolute():
            model["path"] = base if name == "target" else Path(place).name
    results.write_record(folder, content)


def _tokenizer_of(config: Any, base: str) -> str | None:
    """Return where a run's tokenizer lies: beside its target where that is its own, or was made here."""
    named, place = config.model.tokenizer, Path(base)
    beside = named in (None, config.target.path) or (place / MANIFEST).is_file()
    if beside and (place / "tokenizer.json").is_file():
        return base  # in full, where the run's own words may be of another working directory
    return expanded(named) if named else None


def _name_base(folder: Path, base: str) -> int:
    """Write the base's name into an adapter's configuration; return the adapter's rank."""
    file = folder / "adapter_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = base
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return int(content["r"])
