"""Subjects that are not made here: pretrained weights as they come, a published log."""

from functools import partial
from pathlib import Path

import torch

from loku_exp.config.schema import Config
from loku_exp.models import identity
from loku_exp.models import load as models
from loku_exp.runtime.cache import file_digest
from loku_exp.runtime.hub import expanded
from loku_exp.subject import Subject

UNTUNED = "untuned"


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
