"""Load or build a model."""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

from loku_exp.errors import ModelError
from loku_exp.models.activations import fuse_gelu
from loku_exp.models.configuration import check_kind, empty_model, read_config, shorten_context
from loku_exp.models.configuration import context_length as context_length
from loku_exp.models.head import check_head
from loku_exp.models.tensors import tensor_problems, without_load_report
from loku_exp.models.tokenizer import misfits
from loku_exp.runtime.hub import cannot_load, expanded
from loku_exp.runtime.settings import ModelSettings

LinearLayer = nn.Linear | Conv1D  # GPT-2's are of the latter kind, with their weight transposed

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
        ModelError: they cannot be loaded, tensors are missing or left over, or the model's head is not
            supported.
    """
    torch_dtype = getattr(torch, dtype or model.dtype)
    config = read_config(model, path, key)
    attention = _attention(model, torch_dtype)
    empty_model(model, config, attention, f"{key}={path}")  # says what does not go together
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    try:
        with without_load_report():
            loaded, info = from_pretrained(
                expanded(path),
                config=config,
                revision=model.revision if path == model.path else None,
                dtype=torch_dtype,
                attn_implementation=attention,
                trust_remote_code=model.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, all of them
            )
    except Exception as error:  # as many kinds as there are damages; each says what is wrong
        raise ModelError(cannot_load(key, path, error)) from error
    problems = tensor_problems(info)
    if problems:
        raise ModelError("\n".join(f"{key}={path}: {problem}" for problem in problems))
    try:
        return _ready(loaded, device)
    except ModelError as error:
        raise ModelError(f"{key}={path}: {error}") from error


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


def attention_of(model: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the attention a model is computed with; for ``auto`` what transformers takes for it."""
    if model.attention != "auto":
        return model.attention
    with torch.device("meta"):
        return str(from_architecture(model, tokenizer).config._attn_implementation)


def _ready(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a model on its device, in evaluation mode, as it is computed here."""
    fuse_gelu(model)
    model.to(device)  # type: ignore[arg-type]
    check_head(model.eval())
    return model


def from_architecture(
    model: ModelSettings, tokenizer: PreTrainedTokenizerBase, **options: Any
) -> PreTrainedModel:
    """Return the model with untrained weights, e.g. without memory under ``torch.device("meta")``.

    Raises:
        ModelError: its sizes do not go together.
    """
    try:
        return AutoModelForCausalLM.from_config(
            architecture(model, tokenizer), trust_remote_code=model.trust_remote_code, **options
        )
    except ValueError as error:
        if not model.architecture:
            raise
        raise ModelError(
            f"model.architecture: no model can be built of these sizes ({' '.join(str(error).split())}); "
            "mend them, e.g. model.architecture.hidden_size"
        ) from error


def store_as(model: nn.Module, dtype: str) -> None:
    """Round all parameters to a precision, in place; buffers stay as they were loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))


def architecture(model: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the transformers configuration of a model that is built here, or of its weights.

    Raises:
        ModelError: the configuration cannot be loaded, is not of a causal language model, has no room for
            the tokenizer's ids, or for the context length that is set.
    """
    if model.weights == "pretrained":
        name = f"model.path={model.path}"
        config = read_config(model, str(model.path), "model.path")
    else:
        name = f"model.architecture of {model.name}"
        config = _own_config(model, tokenizer)
        check_kind(config, name)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    problems = misfits(tokenizer, rows, name) if rows else []
    if problems:
        raise ModelError("\n".join(problems))
    if model.context_length is not None:
        shorten_context(config, model.context_length)
    return config


def _own_config(model: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> Any:
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    fields |= model.architecture or {}
    try:
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    except Exception as error:  # each architecture checks its fields with errors of its own
        reason = " ".join(str(error).split())
        raise ModelError(f"model.architecture of {model.name} is not one ({reason})") from error


def linear_layers(model: nn.Module) -> dict[str, LinearLayer]:
    """Return the linear layers that read text, by name; not the output head."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    reading = set(text_part(model).modules())
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LinearLayer)
        and module is not head
        and module in reading
        and gives_a_product(module)
    }


def text_part(model: Any) -> Any:
    """Return the part of a model that reads text: less than all where it sees pictures too."""
    config = getattr(model, "config", None)
    whole = config is None or config.get_text_config() is config
    return model if whole else model.get_decoder()


@torch.no_grad()
def gives_a_product(layer: LinearLayer) -> bool:
    """Return whether a layer gives its product and no more: Llama 4's router gives scores beside it."""
    if type(layer).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    outputs, inputs = weight_matrix(layer).shape
    try:
        given = layer(layer.weight.new_zeros(1, inputs))
    except Exception:  # it wants something else than rows, whatever it says of these
        return False
    return isinstance(given, Tensor) and given.shape == (1, outputs)


def weight_matrix(layer: LinearLayer, weight: Tensor | None = None) -> Tensor:
    """Return a linear layer's weight, or what has its shape, as (out, in): a view."""
    weight = layer.weight if weight is None else weight
    return weight.T if isinstance(layer, Conv1D) else weight
