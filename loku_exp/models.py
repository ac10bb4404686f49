"""Load or build a model and its tokenizer."""

import logging
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from loku_exp.cache import Cache, digest, folder_digest
from loku_exp.data.corpus import Corpus, Template
from loku_exp.errors import ModelError
from loku_exp.hub import is_local, looks_like_a_path
from loku_exp.schema import ModelConfig

log = logging.getLogger(__name__)
END_OF_TEXT = "<|endoftext|>"
disable_progress_bar()  # of shards read and written; downloads keep theirs


def resolve_device(device: str) -> torch.device:
    """Return the device a configuration names; ``auto`` takes CUDA where there is one.

    Raises:
        ModelError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device={device}: not available here ({error})") from error


def resolve_autocast(autocast: str, device: torch.device) -> str:
    """Return ``bfloat16`` or ``none``; ``auto`` takes bfloat16 where the hardware computes in it."""
    if autocast != "auto":
        return autocast
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "none"
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # old torch: unknown
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "none"


def load_tokenizer(
    model: ModelConfig, corpus: Corpus, cache: Cache
) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the model's tokenizer and its digest; without one, train a BPE on the corpus.

    Raises:
        ModelError: it cannot be loaded, or has no end-of-text token.
    """
    if model.tokenizer is None:
        template = Template(**model.template.model_dump())
        recipe = {
            "texts": digest(corpus.texts(template)),
            "vocabulary": model.vocabulary,
        }

        def build(folder: Path) -> None:
            train_tokenizer(corpus.texts(template), model.vocabulary or 0).save_pretrained(folder)

        path = str(cache.entry("tokenizers", recipe, build))
    else:
        path = model.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            _expanded(path), revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(_cannot_load("model.tokenizer", path, error)) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model.tokenizer={path} has no end-of-text token, which ends every answer"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, never from ids
    return tokenizer, digest(sorted(tokenizer.get_vocab().items()))


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE.

    Args:
        texts: what it is trained on.
        vocabulary: number of tokens, end-of-text included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    )


def load_model(model: ModelConfig, path: str, device: torch.device) -> PreTrainedModel:
    """Load weights from a folder or the hub, in evaluation mode.

    Raises:
        ModelError: they cannot be loaded.
    """
    if is_local(path) and (Path(path).expanduser() / "adapter_config.json").is_file():
        raise ModelError(
            f"{path} is a PEFT adapter, not a model; merge it into its base first (peft: "
            "merge_and_unload, save_pretrained)"
        )
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            _expanded(path),
            revision=model.revision if path == model.path else None,
            dtype=getattr(torch, model.dtype),
            attn_implementation=model.attention,
            trust_remote_code=model.trust_remote_code,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(_cannot_load("model.path", path, error)) from error
    loaded.to(device)  # type: ignore[arg-type]
    return loaded.eval()


def build_model(
    model: ModelConfig, tokenizer: PreTrainedTokenizerBase, seed: int, device: torch.device
) -> PreTrainedModel:
    """Build the architecture with random weights.

    Args:
        model: its architecture; sizes and token ids of its own win over the tokenizer's.
        tokenizer: gives the vocabulary otherwise.
        seed: of the weights.
        device: where it is put.
    """
    config = architecture(model, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, model.dtype), attn_implementation=model.attention
        )
    return built.to(device).eval()


def architecture(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
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
            _expanded(path), revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(_cannot_load("model.path", path, error)) from error


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


def adapter_layers(model: nn.Module, targets: list[str]) -> list[str]:
    """Return the names of the linear layers an adapter with these targets is put on.

    Args:
        model: any causal language model.
        targets: last parts of layer names, or ``["all-linear"]``.

    Raises:
        ModelError: a target matches no linear layer.
    """
    names = list(linear_layers(model))
    if targets == ["all-linear"]:
        return names
    for target in targets:
        if not any(name.split(".")[-1] == target for name in names):
            known = sorted({name.split(".")[-1] for name in names})
            raise ModelError(
                f"LoRA target '{target}' matches no linear layer; this model has {', '.join(known)}"
            )
    return [name for name in names if name.split(".")[-1] in targets]


def weights_digest(path: str) -> str:
    """Return the identity of weights: of a folder its content, of a hub id its commit if known."""
    if is_local(path):
        return folder_digest(Path(path).expanduser())
    commit = getattr(AutoConfig.from_pretrained(path), "_commit_hash", None)
    return f"{path}@{commit}"


def _expanded(path: str) -> str:
    return str(Path(path).expanduser()) if is_local(path) else path


def _cannot_load(key: str, path: str, error: Exception) -> str:
    if looks_like_a_path(path) and not is_local(path):
        return f"{key}={path}: no such folder"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"cannot load {key}={path} ({reason}). Without a hub, give a folder laid out like the hub's "
        "(config.json, model.safetensors, tokenizer.json): model.path=DIR; or use the untrained "
        "architecture for timing: model.weights=random model.tokenizer=DIR"
    )
