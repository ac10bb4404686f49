"""What a training needs beside its weights to go on, without pickle: safetensors, JSON in the header."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Trainer

from loku_exp.errors import TrainingError
from loku_exp.models.trained import load_trained

OPTIMIZER = "optimizer.state"  # no `.safetensors`: those are weights, and identify a snapshot
DRAWS = "rng_state_{}.state"  # of each process


class SavesWithoutPickle(Trainer):
    """A Trainer whose checkpoints hold optimizer, schedule and states of random draws as plain data.

    Reading one runs no code, whoever wrote it.
    """

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            parts: dict[str, Any] = {"optimizer": self.optimizer, "scheduler": self.lr_scheduler}
            states = {name: part.state_dict() for name, part in parts.items()}
            save_state(states, Path(output_dir) / OPTIMIZER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states = load_state(Path(checkpoint) / OPTIMIZER)
            parts: dict[str, Any] = {"optimizer": self.optimizer, "scheduler": self.lr_scheduler}
            for name, part in parts.items():
                part.load_state_dict(states[name])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights by the names a model has, whatever they are saved under; all of them."""
        load_trained(
            self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint)
        )

    def _save_rng_state(self, output_dir: str) -> None:
        device = self.args.device  # the model's; who goes on may see more or fewer of them
        states = {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "cpu": torch.random.get_rng_state(),
            "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        }
        Path(output_dir).mkdir(
            parents=True, exist_ok=True
        )  # a process may be here before the first
        save_state(states, Path(output_dir) / DRAWS.format(self.args.process_index))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        states = load_state(Path(checkpoint) / DRAWS.format(self.args.process_index))
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        torch.random.set_rng_state(states["cpu"])
        device = self.args.device
        if device.type == "cuda" and states["cuda"]:
            torch.cuda.set_rng_state(states["cuda"][0], device)


def save_state(state: Any, file: Path) -> None:
    """Write nested plain data with tensors in it.

    Args:
        state: dicts, lists, tuples, numbers, strings, None, tensors and arrays of numbers.
        file: to write.

    Raises:
        TypeError: it holds something else.
    """
    tensors: dict[str, Tensor] = {}
    save_file(tensors, file, metadata={"state": json.dumps(_plain(state, tensors))})


def load_state(file: Path) -> Any:
    """Read what `save_state` wrote; tensors are on the CPU.

    Raises:
        TrainingError: it is something else.
    """
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return _restored(json.loads(opened.metadata()["state"]), tensors)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{file} is no state of a training ({error}); delete the folder {file.parent}: the same "
            "command goes on from the snapshot before it"
        ) from error


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return JSON data for a value; its tensors go by name into `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {"dict": [[_plain(k, tensors), _plain(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_plain(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is no plain data")


def _restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return np.array(content, dtype=value["dtype"])
    if kind == "dict":
        return {_restored(k, tensors): _restored(v, tensors) for k, v in content}
    items = [_restored(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
