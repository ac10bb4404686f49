"""Subjects that are not made here: pretrained weights as they come, a published log; and what they are."""

from functools import partial
from pathlib import Path

import torch

from loku_exp.config.schema import Config
from loku_exp.models import identity
from loku_exp.models import load as models
from loku_exp.models.origin import Origin, origin_of
from loku_exp.runtime.cache import file_digest
from loku_exp.runtime.hub import expanded
from loku_exp.subject import Subject

UNTUNED = "untuned"


def given_origins(config: Config) -> list[Origin]:
    """Return what must be said of the weights that a run was given."""
    if config.model.weights != "pretrained":
        return []
    paths = (config.model.path, config.target.path, config.reference.path)
    return list(dict.fromkeys(origin for path in paths if (origin := origin_of(path))))


def is_toy(config: Config) -> bool:
    """Return whether data or model of a run are toys, also where the model lies in a folder by now."""
    kinds = {config.model.kind, *(origin.kind for origin in given_origins(config))}
    return config.dataset.toy or "toy" in kinds


def untuned(config: Config) -> Subject:
    """Return the pretrained weights that a target is fine-tuned from here."""
    path, device = str(config.model.path), torch.device(config.device)
    return Subject(
        name=UNTUNED,
        weights="pretrained",
        identity=identity.weights_digest(path, "model.path", config.model),
        load=partial(models.load_model, config.model, path, device),
        abilities_only=True,
        path=expanded(path),
    )


def of_log(config: Config) -> Subject:
    """Return a published log as the reference."""
    path = str(config.reference.path)
    identity_of_log = file_digest(Path(path).expanduser())
    return Subject("reference", "published_log", identity_of_log, load=None, path=path)
