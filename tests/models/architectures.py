"""Tiny random models of many architectures, laid out like the hub's, with a tokenizer of their own."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from loku_exp.config.compose import compose_config
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.runtime.settings import ModelSettings

VOCABULARY, POSITIONS = 260, 64
BLOCKS = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": POSITIONS,
}  # fmt: skip
GROUPED = BLOCKS | {"num_key_value_heads": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt_neo": {
        "hidden_size": 16, "num_layers": 2, "num_heads": 2, "window_size": 6,
        "attention_types": [[["global", "local"], 1]], "max_position_embeddings": POSITIONS,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS},
    "phi": BLOCKS | {"partial_rotary_factor": 0.5},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 6},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "gpt_neox": BLOCKS,
    "opt": {  # square feed-forward layers: a mistake in which row is whose has the right shape
        "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "word_embed_proj_dim": 16, "max_position_embeddings": POSITIONS, "dropout": 0.0,
    },
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gemma": GROUPED | {"head_dim": 8},
    "gemma2": GROUPED | {"head_dim": 8, "sliding_window": 6},
    "mixtral": GROUPED | {"num_local_experts": 4},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
}  # fmt: skip
TITLES = {
    "gpt_neo": "GPT-Neo", "gpt2": "GPT-2", "phi": "Phi", "llama": "Llama",
    "mistral": "Mistral, sliding window", "qwen2": "Qwen2", "qwen3": "Qwen3", "gpt_neox": "GPT-NeoX",
    "opt": "OPT", "bloom": "BLOOM", "falcon": "Falcon", "gemma": "Gemma", "gemma2": "Gemma 2",
    "mixtral": "Mixtral", "mamba": "Mamba",
}  # fmt: skip


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["a question and its answer"], VOCABULARY)


def build(kind: str, **fields: Any) -> PreTrainedModel:
    """A random model whose numbers are large enough for mistakes to show; the same every time."""
    shape = ARCHITECTURES[kind] | {"vocab_size": VOCABULARY, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **shape | {"bos_token_id": 0, "eos_token_id": 0} | fields)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


def folder(kind: str, place: Path, **fields: Any) -> Path:
    """A folder laid out like the hub's."""
    build(kind, **fields).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@cache
def _settings() -> ModelSettings:
    arguments = ["model=hf", "model.path=DIR", "dataset=toy_tofu", "reference.source=none"]
    return compose_config([*arguments, "model.dtype=float32", "model.attention=auto"]).model


def settings(place: Path | str, **fields: Any) -> ModelSettings:
    """What model=hf makes of a folder."""
    return _settings().model_copy(update={"path": str(place), "tokenizer": str(place)} | fields)
