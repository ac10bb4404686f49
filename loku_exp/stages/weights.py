"""Which weights a run reads, and what is wrong with them, found before anything is made of them."""

from transformers import PreTrainedTokenizerBase

from loku_exp.config.schema import Config
from loku_exp.data.corpus import Role
from loku_exp.models import weights
from loku_exp.runtime.cache import digest

_looked_at: dict[str, list[str]] = {}  # the runs of a sweep read the same


def trained_here(config: Config) -> list[Role]:
    """Return which of target and reference are fine-tuned here."""
    if config.model.weights == "random":
        return []
    roles: list[Role] = ["target"] if config.target.made_here else []
    return [*roles, "reference"] if config.reference.source == "train" else roles


def places(config: Config) -> dict[str, str]:
    """Return the folders and hub ids that weights are read from, by key; each once."""
    if config.model.weights == "random":
        return {}
    base = config.model.path if config.model.weights == "pretrained" else None
    named = {
        "model.path": base if trained_here(config) or base == config.target.path else None,
        "target.path": config.target.path,
        "reference.path": config.reference.path if config.reference.source == "path" else None,
        "method.path": config.method.knobs.get("path") if config.unlearn else None,
    }
    keys: dict[str, str] = {}
    for key, path in named.items():
        if path:
            keys.setdefault(path, key)
    return {key: path for path, key in keys.items()}


def weights_problems(
    config: Config, loaded: tuple[PreTrainedTokenizerBase, str] | None
) -> list[str]:
    """Return everything that is wrong with the weights a run reads, one line each.

    Args:
        config: of the run.
        loaded: the model's tokenizer and its digest, where there is one.
    """
    settings = config.model.model_dump(mode="json")
    tokenizer, name = loaded or (None, None)
    found = []
    for key, path in places(config).items():
        look = digest([key, path, settings, name])
        if look not in _looked_at:
            _looked_at[look] = weights.problems(path, key, config.model, tokenizer)
        found += _looked_at[look]
    return found
