"""What a forward pass keeps for its backward pass, and what is free: to decide, before it is too late.

The bytes are read off two short texts, with everything the graph saves counted once a storage and
without weights and buffers. They are ``a T + b T^2`` for a text of T tokens (b: attention that keeps its
scores), so two lengths give both. Autocast halves much of it; that is not asked, so the estimate is an
upper one.
"""

import logging
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.models.head import hidden_before_head

log = logging.getLogger(__name__)
PROBES = (16, 32)  # tokens
USABLE = 0.8  # of what is free: fragments, and what libraries allocate


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device; beside CUDA, main memory's."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    return int(psutil.virtual_memory().available)


def fits(needed: int, device: torch.device) -> bool:
    """Return whether so many bytes can be had with room to spare."""
    return needed <= USABLE * free_memory(device)


def gibibytes(size: float) -> str:
    """Return a number of bytes in words."""
    return f"{size / 2**30:.2f} GiB"


def activation_bytes(model: nn.Module, texts: int, length: int) -> int:
    """Return the bytes the graph of a forward pass up to the output head holds.

    Args:
        model: what is trained in it, as in training; an adapter or all weights.
        texts: of the batch.
        length: that it is padded to.
    """
    (t1, bytes1), (t2, bytes2) = ((probe, _saved_by(model, probe)) for probe in PROBES)
    per_pair = (bytes2 / t2 - bytes1 / t1) / (t2 - t1)
    per_token = bytes1 / t1 - per_pair * t1
    return round(texts * (per_token * length + max(per_pair, 0) * length**2))


def _saved_by(model: nn.Module, length: int) -> int:
    """Return the bytes of all storages that the graph of one text keeps beside weights and buffers."""
    device = next(model.parameters()).device
    # buffers can be large: GPT-Neo keeps a mask of its whole context in each layer
    known = (*model.parameters(), *model.buffers())
    there_anyway = {tensor.untyped_storage().data_ptr() for tensor in known}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there_anyway:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Any) -> Any:
        return tensor

    probe = to_device(pad([Sequence((0,) * length, (0,) * length)]), device)
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, unpack),
    ):
        hidden = hidden_before_head(model, probe)  # held: a freed storage's address is used again
    del hidden
    return sum(storages.values())
