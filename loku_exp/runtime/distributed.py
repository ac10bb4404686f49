"""Several processes train one run: ``torchrun --standalone --nproc-per-node N -m loku_exp ...``.

Rank zero is the run: it reads, checks, evaluates and writes. The other ranks wait for it and join the
unlearning; every update has exactly the examples it has with one process. Target and reference are
each made by one process.
"""

import logging
import os
import pickle
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
def leading() -> Iterator[None]:
    """Be rank zero inside; send the others home at the end.

    After a failure they are not sent: they may be amid a training, and torchrun ends them.
    """
    if size() == 1:
        yield
        return
    _connect()
    try:
        yield
    except SystemExit as end:
        if not end.code:
            _dismiss()
        raise
    else:
        _dismiss()


def assist() -> None:
    """Be another rank: do what rank zero does `together`, until it sends home."""
    _connect()
    logging.getLogger().setLevel(logging.ERROR)
    while (message := _next()) is not None:
        environment, call = message
        os.environ.update(environment)  # before what is called is imported
        function, arguments = pickle.loads(call)
        function(*arguments)
    _disconnect()


def _next() -> Any:
    try:
        return _receive()
    except RuntimeError:  # rank zero is gone, and has said why
        raise SystemExit(1) from None


def leave() -> bool:
    """Make this process, started by rank zero, work alone; return whether there were others."""
    there_were = size() > 1
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        os.environ.pop(name, None)
    return there_were


def together(function: Callable[..., Any], *arguments: Any) -> None:
    """Have the other ranks call a module's function; rank zero goes on at once.

    Args:
        function: what they do; it trains as rank zero is about to.
        arguments: plain data.
    """
    if size() > 1 and rank() == 0:
        offline = {name: value for name, value in os.environ.items() if name.startswith("HF_")}
        _send((offline, pickle.dumps((function, arguments))))


def of_first(function: Callable[[], Any]) -> Any:
    """Return on every rank what the function returns on rank zero, the only one that calls it."""
    if size() == 1:
        return function()
    if rank() > 0:
        return _receive()
    found = function()
    _send(found)
    return found


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


def fsdp2(model: "torch.nn.Module", checkpointing: bool) -> dict[str, Any]:
    """Return the arguments of a Trainer that shards parameters, gradients and optimiser state (FSDP2).

    Args:
        model: its blocks are sharded one by one; what lies outside them together.
        checkpointing: recompute activations in the backward pass; FSDP's own, not the model's.
    """
    config = {
        "version": 2,
        "transformer_layer_cls_to_wrap": block_classes(model),
        "reshard_after_forward": True,
        "state_dict_type": "FULL_STATE_DICT",  # snapshots look as those of one process
        "activation_checkpointing": checkpointing,
    }
    return {"fsdp": True, "fsdp_config": config}


def block_classes(model: "torch.nn.Module") -> list[str]:
    """Return the names of a model's block classes, as transformers knows them."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return sorted(base._no_split_modules or [])  # type: ignore[arg-type]


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


def _disconnect() -> None:
    from torch import distributed

    distributed.destroy_process_group()


def _dismiss() -> None:
    _send(None)
    _disconnect()


def _send(message: Any) -> None:
    from torch import distributed

    distributed.broadcast_object_list([message], src=0, group=_waiting, device=_cpu())


def _receive() -> Any:
    from torch import distributed

    messages = [None]
    distributed.broadcast_object_list(messages, src=0, group=_waiting, device=_cpu())
    return messages[0]


def _barrier() -> None:
    from torch import distributed

    distributed.barrier(group=_waiting)


def _cpu() -> "torch.device":
    import torch

    return torch.device("cpu")
