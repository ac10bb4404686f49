"""The machine a run is on, as it was resolved once: device, precision, attention, threads, processes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loku_exp.errors import ModelError
from loku_exp.runtime import distributed

if TYPE_CHECKING:  # a record is read without torch
    import torch


@dataclass(frozen=True)
class Machine:
    """What ``auto`` became.

    Attributes:
        device: e.g. ``cpu``, ``cuda:0``.
        precision: by part, ``model`` (of its weights), ``finetuning`` and ``unlearning`` (what products
            are computed in while training: ``bfloat16``, or ``none`` for that of the weights).
        attention: what transformers is asked for; ``auto`` until it has chosen.
        threads: of torch, in each process.
        processes: that train together.
    """

    device: str
    precision: dict[str, str]
    attention: str
    threads: int
    processes: int


def resolve_device(device: str) -> "torch.device":
    """Return the device a configuration names; ``auto`` takes CUDA where there is one.

    Raises:
        ModelError: no such device here.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and distributed.size() > 1:
        device = f"cuda:{distributed.local_rank()}"
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"device={device}: not available here{_said(device, error)}; leave device out, or set "
            "device=cpu"
        ) from error


def _said(device: str, error: Exception) -> str:
    """Return what torch says of a device it knows, and which there are beside one it does not."""
    known = ("cpu", "cuda", "mps", "xpu")
    if device.partition(":")[0] in known:
        return f" ({str(error).splitlines()[0]})"
    return " (devices are auto, cpu, cuda, cuda:1, mps)"


def resolve_autocast(autocast: str, device: "torch.device") -> str:
    """Return ``bfloat16`` or ``none``; ``auto`` takes bfloat16 where the hardware computes in it."""
    import torch

    if autocast != "auto":
        return autocast
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "none"
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # old torch: unknown
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "none"


def resolve_dtype(dtype: str, device: "torch.device") -> str:
    """Return the precision of weights; ``auto`` takes bfloat16 where the hardware computes in it."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if resolve_autocast("auto", device) == "bfloat16" else "float32"


def resolve_attention(attention: str, device: "torch.device", dtype: str) -> str:
    """Return the attention transformers is asked for; ``auto`` takes what the hardware does best.

    That is flash attention where it is installed, on CUDA in half precision; elsewhere it stays ``auto``,
    for which transformers takes torch's fused attention, or eager where the architecture has no other.
    """
    if attention != "auto" or device.type != "cuda" or dtype == "float32":
        return attention
    from transformers.utils import is_flash_attn_2_available

    return "flash_attention_2" if is_flash_attn_2_available() else attention
