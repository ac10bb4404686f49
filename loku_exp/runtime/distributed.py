"""Several processes train one run: ``torchrun --standalone --nproc-per-node N -m loku_exp ...``.

All of them run the same program up to the end of unlearning; rank zero goes first wherever something is
made that the others then find, and it alone evaluates and writes. Every update has exactly the examples it
has with one process.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from loku_exp.errors import UserError

if TYPE_CHECKING:  # torch is imported only where there are several processes
    import torch

PATIENCE = timedelta(days=7)  # rank zero may evaluate for hours while the others wait
_waiting: Any = None  # the process group that messages go through


def size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number, from 0."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def local_rank() -> int:
    """Return this process's number on its machine: which of its GPUs it takes."""
    return int(os.environ.get("LOCAL_RANK", "0")) if size() > 1 else 0


@contextmanager
def connected() -> Iterator[None]:
    """Be one of several processes inside."""
    if size() == 1:
        yield
        return
    _connect()
    yield
    from torch import distributed

    distributed.destroy_process_group()  # not after a failure: the others may be amid a training


def leave() -> bool:
    """Make this process, started by rank zero, work alone; return whether there were others."""
    there_were = size() > 1
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        os.environ.pop(name, None)
    return there_were


def of_first(function: Callable[[], Any]) -> Any:
    """Return on every rank what the function returns on rank zero, the only one that calls it.

    Args:
        function: returns plain data.
    """
    if size() == 1:
        return function()
    import torch
    from torch import distributed

    content = json.dumps(function()).encode() if rank() == 0 else b""
    length = torch.tensor([len(content)])
    distributed.broadcast(length, src=0, group=_waiting)
    text = torch.frombuffer(bytearray(content or bytes(int(length))), dtype=torch.uint8)
    distributed.broadcast(text, src=0, group=_waiting)
    return json.loads(bytes(text.tolist()))


@contextmanager
def first_before_others() -> Iterator[None]:
    """Let rank zero do what is inside before the others do it, so that they find what it made."""
    if size() > 1 and rank() > 0:
        _barrier()
    yield
    if size() > 1 and rank() == 0:
        _barrier()


@contextmanager
def first_alone() -> Iterator[bool]:
    """Let rank zero work on files that others have written; yields whether this is rank zero.

    All ranks come here, and none leaves before rank zero is done.
    """
    if size() > 1:
        _barrier()
    yield rank() == 0
    if size() > 1:
        _barrier()


def through(wrapped: "torch.nn.Module", model: "torch.nn.Module", call: Callable[[], Any]) -> Any:
    """Call something that runs a model's parts, inside the forward pass of its distributed wrapper.

    The wrapper prepares its exchange of gradients in its own forward pass; a loss that calls the model,
    perhaps several times, must run inside it.

    Args:
        wrapped: the wrapper, or the model itself.
        model: what it wraps.
        call: returns the loss.
    """
    if wrapped is model:
        return call()
    own = vars(model).get("forward")

    def forward() -> Any:
        restore()
        return call()

    def restore() -> None:
        vars(model).pop("forward", None)
        if own is not None:
            vars(model)["forward"] = own

    vars(model)["forward"] = forward
    try:
        return wrapped()
    finally:
        restore()


def _connect() -> None:
    global _waiting
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group(_backend())
    _waiting = distributed.new_group(backend="gloo", timeout=PATIENCE)


def _backend() -> str:
    """Return gloo, with NCCL beside it where there are GPUs.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    import torch

    if not torch.cuda.is_available():
        return "gloo"
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"torchrun started more processes than there are GPUs ({torch.cuda.device_count()}); lower "
            "--nproc-per-node"
        )
    torch.cuda.set_device(local_rank())
    return "cpu:gloo,cuda:nccl"


def _barrier() -> None:
    from torch import distributed

    distributed.barrier(group=_waiting)
