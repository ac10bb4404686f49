"""What an earlier run left as the target of this one, and whether its forget set comes back."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from loku_exp.config.rules import parse
from loku_exp.config.saved import saved
from loku_exp.config.schema import Config
from loku_exp.data.corpus import Corpus
from loku_exp.errors import ConfigError, UserError
from loku_exp.methods.adapter import merged
from loku_exp.models.load import load_model, store_as
from loku_exp.models.origin import hand_on_origin
from loku_exp.results import files
from loku_exp.results.schema import Record
from loku_exp.results.shipped import base_damage, shipped_of
from loku_exp.runtime.cache import MANIFEST, Cache, digest
from loku_exp.runtime.chosen import check_returned
from loku_exp.runtime.hub import looks_like_a_path
from loku_exp.runtime.settings import ModelSettings
from loku_exp.subject import Subject

FOLD_FORMAT = 1  # raise by hand whenever what is folded changes


@dataclass(frozen=True)
class Earlier:
    """A finished run, and what it left.

    Attributes:
        folder: of the run.
        config: its resolved configuration.
        record: of the run.
        kind: ``adapter`` or ``model``.
        shipped: where that lies.
        base: where the target lies that an adapter is for.
        identity: of what the run left: its id, and the sums of the files it shipped.
        before: the run that this one started from, if it did.
    """

    folder: Path
    config: Config
    record: Record
    kind: str
    shipped: Path
    base: str
    identity: str
    before: "Earlier | None"

    def chain(self) -> Iterator["Earlier"]:
        """Yield this run, the one it started from, and so on."""
        yield self
        if self.before is not None:
            yield from self.before.chain()


def load_corpus(config: Config) -> Corpus:
    """Return the texts of a run."""
    corpus: Corpus = config.dataset.chosen()()
    protocol = getattr(corpus, "protocol", {})
    check_returned(f"protocol of {config.dataset.target}", protocol, dict)
    check_returned(config.dataset.target, corpus, Corpus)
    return corpus


def earlier_of(config: Config) -> Earlier | None:
    """Return the run that a run starts from; None where it starts from a model.

    Raises:
        UserError: it is no finished run, is not as it was written, or left nothing to start from.
    """
    if config.target.run is None:
        return None
    folder = Path(config.target.run).expanduser()
    try:
        then = parse(saved(folder) | {"tracking": {"name": "none"}})
        record = files.read(folder)
        kind, shipped, recipe = shipped_of(folder, record)
        base = str(recipe["base"])
        if record.models["target"].weights == "random":
            raise UserError("its weights are random, for timing only")
        _check_base(kind, recipe)
    except UserError as error:
        raise named_in(config, error) from error
    made = json.loads((shipped / MANIFEST).read_text(encoding="utf-8"))["files"]
    sums = {name: file["sha256"] for name, file in made.items()}
    name = digest([record.run.id, sums])
    return Earlier(folder, then, record, kind, shipped, base, name, earlier_of(then))


def named_in(config: Config, error: UserError) -> ConfigError:
    """Return an error about an earlier run with the key that names it, on each line."""
    lines = str(error).splitlines()
    return ConfigError([f"target.run={config.target.run}: {line}" for line in lines])


def _check_base(kind: str, recipe: dict[str, Any]) -> None:
    base = str(recipe["base"])
    again = "delete its done.json and run its command again, which makes it anew"
    if kind == "model":
        return
    if looks_like_a_path(base) and not Path(base).is_dir():
        raise UserError(f"its target, {base}, is gone; {again}")
    broken = base_damage(recipe)
    if broken is not None:
        yours = "put them back, or run its command again and start from what that leaves"
        fix = again if (Path(base) / MANIFEST).is_file() else yours
        raise UserError(f"its target, {base}, is not as it was ({broken}); {fix}")


def folded(
    earlier: Earlier, model: ModelSettings, tokenizer: PreTrainedTokenizerBase, cache: Cache
) -> Path:
    """Return the folder of the model that a run left: its adapter in the weights it was made for.

    Folded in float32 and stored in the model's precision, as ``export --merged`` does. An adapter that is
    shipped holds what its init took out of the base, so the untouched base is what it is folded into.

    Args:
        earlier: the run.
        model: how this run computes it.
        tokenizer: of it.
        cache: keeps it.
    """
    if earlier.kind == "model":
        return earlier.shipped

    def build(folder: Path) -> None:
        """Fold once, into a folder of the cache."""
        base = load_model(
            model, earlier.base, torch.device("cpu"), key="target.run", dtype="float32"
        )
        whole = merged(PeftModel.from_pretrained(base, str(earlier.shipped)))
        store_as(whole, model.dtype)
        whole.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        hand_on_origin(earlier.base, folder)

    return cache.entry("models", fold_recipe(earlier, model), build)


def fold_recipe(earlier: Earlier, model: ModelSettings) -> dict[str, str | int]:
    """Return what the weights of a folded model depend on."""
    return {"format": FOLD_FORMAT, "left_by": earlier.identity, "dtype": model.dtype}


def target_left(
    earlier: Earlier,
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    cache: Cache,
    reference: str | None,
) -> Subject:
    """Return what an earlier run left as the target of this one.

    Args:
        earlier: the run.
        config: of this run.
        tokenizer: of the model.
        cache: keeps it.
        reference: name of the subject it is compared with.
    """
    path = str(folded(earlier, config.model, tokenizer, cache))
    on = torch.device(config.device)
    return Subject(
        name="target",
        weights=earlier.record.models["target"].weights,
        identity=earlier.identity,
        load=partial(load_model, config.model, path, on, key="target.run"),
        reference=reference,
        path=path,
    )
