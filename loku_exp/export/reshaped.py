"""An exported adapter made smaller, or folded into the weights of its base."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from loku_exp.errors import UserError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def compress(folder: Path, rank: int) -> float:
    """Replace an adapter by the nearest one of a smaller rank, layer by layer.

    The product B A of each layer becomes its truncated singular value decomposition, the nearest matrix of
    that rank in the Frobenius norm (Eckart and Young 1936). Nothing larger than (out + in) x rank is made.

    Args:
        folder: holds the adapter; is overwritten.
        rank: of the result, the same in all layers.

    Returns:
        The error: norm of the difference of all updates over their norm, between 0 and 1.

    Raises:
        UserError: the rank is none, or not below the adapter's; or the adapter holds other tensors.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if not 1 <= rank < config["r"]:
        raise UserError(
            f"--rank {rank}: must be at least 1 and below the adapter's rank, {config['r']}"
        )
    state = load_file(folder / WEIGHTS)
    layers = sorted(name.removesuffix(".lora_A.weight") for name in state if ".lora_A." in name)
    paired = {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    if paired != state.keys() or config.get("rank_pattern"):
        raise UserError(f"--rank {rank}: this adapter is of more than linear layers of one rank")
    lost = whole = 0.0
    for layer in layers:
        a, b = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
        state[a], state[b], spectrum = _truncated(state[a], state[b], rank)
        lost += float(spectrum[rank:].square().sum())
        whole += float(spectrum.square().sum())
    save_file(state, folder / WEIGHTS)
    config["lora_alpha"] = config["lora_alpha"] * rank / config["r"]  # the same scale alpha / r
    config["r"] = rank
    (folder / CONFIG).write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    return math.sqrt(lost / whole) if whole else 0.0


def _truncated(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A (rank, in) and B (out, rank) of the nearest product, and the singular values of B A."""
    left, upper_left = torch.linalg.qr(b.double())
    right, upper_right = torch.linalg.qr(a.double().T)
    u, spectrum, vh = torch.linalg.svd(upper_left @ upper_right.T)
    root = spectrum[:rank].sqrt()
    new_b = (left @ u[:, : len(root)]) * root
    new_a = root[:, None] * (vh[: len(root)] @ right.T)
    more = rank - len(root)  # a layer narrower than the rank has no more to give
    new_a, new_b = functional.pad(new_a, (0, 0, 0, more)), functional.pad(new_b, (0, more))
    return new_a.to(a.dtype).contiguous(), new_b.to(b.dtype).contiguous(), spectrum


def merge(
    folder: Path,
    base: str,
    tokenizer: str | None,
    *,
    revision: str | None = None,
    tokenizer_revision: str | None = None,
    trust_remote_code: bool = False,
) -> str:
    """Replace an adapter by the base with it folded in, stored in the precision of the base.

    Args:
        folder: holds the adapter; afterwards the model, and the tokenizer where one is named.
        base: where the untouched target lies, a folder or hub id.
        tokenizer: of it, a folder or hub id; None where there is none.
        revision: of the base on the hub; None for what it is now.
        tokenizer_revision: likewise.
        trust_remote_code: whether code of the base is run, as the run's own configuration says.

    Returns:
        The precision the weights are stored in.

    Raises:
        UserError: the base or its tokenizer is not there.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", revision=revision, trust_remote_code=trust_remote_code
        )
        dtype = model.dtype
        merged = PeftModel.from_pretrained(model.float(), str(folder)).merge_and_unload()
    except (OSError, ValueError) as error:
        raise UserError(_needed(f"target, {base}, as", error)) from error
    try:
        options = {"revision": tokenizer_revision, "trust_remote_code": trust_remote_code}
        named = AutoTokenizer.from_pretrained(tokenizer, **options) if tokenizer else None
    except (OSError, ValueError) as error:
        raise UserError(_needed(f"tokenizer, {tokenizer}, where", error)) from error
    for name in (WEIGHTS, CONFIG):
        (folder / name).unlink()
    merged.to(dtype).save_pretrained(folder)
    if named is not None:
        named.save_pretrained(folder)
    return str(dtype).removeprefix("torch.")


def _needed(what: str, error: Exception) -> str:
    return f"--merged needs the run's {what} it was ({' '.join(str(error).split())[:160]})"
