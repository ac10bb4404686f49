"""Load or build a model."""

import logging
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from loku_exp.errors import ModelError
from loku_exp.models.activations import fuse_gelu
from loku_exp.models.head import check_head
from loku_exp.runtime.hub import cannot_load, expanded
from loku_exp.runtime.settings import ModelSettings

log = logging.getLogger(__name__)
disable_progress_bar()  # of shards read and written; downloads keep theirs


def _attention(model: ModelSettings, dtype: torch.dtype) -> str | None:
    """Return the attention to ask transformers for; None leaves it to the architecture."""
    flash = model.attention == "flash_attention_2"
    return (
        None if model.attention == "auto" or (flash and dtype == torch.float32) else model.attention
    )


def load_model(
    model: ModelSettings,
    path: str,
    device: torch.device,
    *,
    key: str = "model.path",
    dtype: str | None = None,
) -> PreTrainedModel:
    """Load weights from a folder or the hub, in evaluation mode.

    Args:
        model: how it is computed.
        path: folder or hub id.
        device: where it is put.
        key: where the path stands in the configuration, for errors.
        dtype: of the weights; None for the model's own.

    Raises:
        ModelError: they cannot be loaded, or the model's head is not supported.
    """
    torch_dtype = getattr(torch, dtype or model.dtype)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            expanded(path),
            revision=model.revision if path == model.path else None,
            dtype=torch_dtype,
            attn_implementation=_attention(model, torch_dtype),
            trust_remote_code=model.trust_remote_code,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(cannot_load(key, path, error)) from error
    return _ready(loaded, device)


def build_model(
    model: ModelSettings,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    device: torch.device,
    *,
    dtype: str | None = None,
) -> PreTrainedModel:
    """Build the architecture with random weights.

    Args:
        model: its architecture; sizes and token ids of its own win over the tokenizer's.
        tokenizer: gives the vocabulary otherwise.
        seed: of the weights.
        device: where it is put.
        dtype: of the weights; None for the model's own.
    """
    torch_dtype = getattr(torch, dtype or model.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = from_architecture(
            model,
            tokenizer,
            dtype=torch_dtype,
            attn_implementation=_attention(model, torch_dtype),
        )
    return _ready(built, device)


def _ready(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a model on its device, in evaluation mode, as it is computed here."""
    fuse_gelu(model)
    model.to(device)  # type: ignore[arg-type]
    check_head(model.eval())
    return model


def from_architecture(
    model: ModelSettings, tokenizer: PreTrainedTokenizerBase, **options: Any
) -> PreTrainedModel:
    """Return the model with untrained weights, e.g. without memory under ``torch.device("meta")``."""
    return AutoModelForCausalLM.from_config(
        architecture(model, tokenizer), trust_remote_code=model.trust_remote_code, **options
    )


def store_as(model: nn.Module, dtype: str) -> None:
    """Round all parameters to a precision, in place; buffers stay as they were loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))


def architecture(model: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the transformers configuration of a model that is built here, or of its weights.

    Raises:
        ModelError: the configuration cannot be loaded.
    """
    if model.weights != "pretrained":
        fields: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        }
        fields |= model.architecture or {}
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    path = str(model.path)
    try:
        return AutoConfig.from_pretrained(
            expanded(path), revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(cannot_load("model.path", path, error)) from error


def context_length(config: Any) -> int:
    """Return how many tokens a model can see, from its transformers configuration.

    Raises:
        ModelError: the configuration does not say.
    """
    for field in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        length = getattr(config, field, None)
        if length:
            return int(length)
    raise ModelError(
        f"the configuration of this {config.model_type} model names no context length; set "
        "model.architecture.max_position_embeddings"
    )


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return all linear layers but the output head, by name."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
