"""A model's configuration as transformers reads it, and whether it is one that can be unlearned here.

Nothing here reads weights.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)

from loku_exp.errors import ModelError
from loku_exp.models.identity import check_folder
from loku_exp.runtime.hub import cannot_load, expanded, is_local
from loku_exp.runtime.settings import ModelSettings

LENGTHS = (  # what models call the tokens they can see; a window comes last, being less than they can
    "context_length",
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "seq_length",
    "seq_len",
    "attention_window_size",
    "sliding_window",
)


def read_config(model: ModelSettings, path: str, key: str) -> Any:
    """Return the transformers configuration of weights in a folder or on the hub.

    Args:
        model: its revision belongs to its own path; says whether remote code is run.
        path: folder or hub id.
        key: where it stands in the configuration, for errors.

    Raises:
        ModelError: it cannot be read, or is of a model that cannot be unlearned here.
    """
    if is_local(path):
        check_folder(Path(path).expanduser(), key)
    try:
        config = AutoConfig.from_pretrained(
            expanded(path),
            revision=model.revision if path == model.path else None,
            trust_remote_code=model.trust_remote_code,
        )
    except (
        Exception
    ) as error:  # as many kinds as there are mistakes in a file; each says what is wrong
        raise ModelError(cannot_load(key, path, error)) from error
    check_kind(config, f"{key}={path}")
    return config


def check_kind(config: Any, name: str) -> None:
    """Check that a configuration is of a causal language model with weights in full precision.

    Args:
        config: of transformers.
        name: key and value it comes from, for errors.

    Raises:
        ModelError: it is not.
    """
    kind = getattr(config, "model_type", type(config).__name__)
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    why = None
    if getattr(config, "is_encoder_decoder", False):
        why = "has an encoder and a decoder"
    elif not (causal or remote):
        why = "has no head that predicts the next token"
    elif type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        why = "reads a text in both directions"
    if why:
        raise ModelError(
            f"{name}: a {kind} model is not a causal language model, it {why}; give one that predicts the "
            "next token (GPT-2, Llama, Mistral, ...)"
        )
    if getattr(config, "quantization_config", None):
        method = config.quantization_config
        method = method.get("quant_method") if isinstance(method, dict) else type(method).__name__
        raise ModelError(
            f"{name}: its weights are quantised ({method}), and these cannot be trained, measured or taken "
            "apart; give the model they were made from"
        )


def empty_model(
    model: ModelSettings, config: Any, attention: str | None, name: str
) -> PreTrainedModel:
    """Return the model that a configuration describes, without memory.

    Args:
        model: says whether remote code is run.
        config: of transformers; left as it is.
        attention: what is asked for; None for what transformers takes.
        name: key and path of the model, for errors.

    Raises:
        ModelError: it cannot be built, or not with this attention.
    """

    def build(implementation: str | None) -> PreTrainedModel:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                copy.deepcopy(config),
                attn_implementation=implementation,
                trust_remote_code=model.trust_remote_code,
            )

    try:
        return build(attention)
    except Exception as error:  # the code of each architecture fails in its own way
        reason = " ".join(str(error).split()).split(". ")[0]
        try:
            if attention in (None, "eager"):
                raise
            build("eager")
        except Exception:
            raise ModelError(
                f"{name}: the model that config.json describes cannot be built ({reason})"
            ) from error
        raise ModelError(
            f"{name}: model.attention={attention} does not go with this {config.model_type} model "
            f"({reason}); set model.attention=eager"
        ) from error


def context_length(config: Any) -> int:
    """Return how many tokens a model can see, from its transformers configuration.

    Raises:
        ModelError: the configuration does not say.
    """
    length = named_length(config)
    if length is None:
        raise ModelError(
            f"the configuration of this {config.model_type} model names no context length; say how many "
            "tokens it can see, as many as it was trained with: model.context_length=2048"
        )
    return length


def shorten_context(config: Any, length: int) -> None:
    """Let a configuration name a context length, whatever else it names.

    Raises:
        ModelError: the model sees less.
    """
    named = named_length(config)
    if named is not None and length > named:
        raise ModelError(
            f"model.context_length={length} is more than the {named} tokens that the model's own "
            f"configuration names; set it to at most {named}, or leave it null"
        )
    config.context_length = length


def named_length(config: Any) -> int | None:
    """Return the context length that a configuration names; None where it names none, as BLOOM's."""
    text = config.get_text_config()  # of a model that sees pictures too, the part that reads
    for owner in (config, text):
        for field in LENGTHS:
            length = getattr(owner, field, None)
            if isinstance(length, int) and length > 0:
                return length
    return None
