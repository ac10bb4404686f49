"""What is wrong with weights in a folder, found before anything is made of them.

Headers and values are read whole, so a damaged copy costs seconds and not a training.
"""

import json
import logging
import math
import pickle
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from loku_exp.errors import ModelError
from loku_exp.models.configuration import empty_model, read_config
from loku_exp.models.head import CHANGED
from loku_exp.models.identity import check_folder
from loku_exp.models.tensors import tensor_problems, without_load_report
from loku_exp.models.tokenizer import misfits
from loku_exp.models.without_memory import changes_logits
from loku_exp.runtime.hub import LONGEST_REASON, is_local, looks_like_a_path
from loku_exp.runtime.settings import ModelSettings

log = logging.getLogger(__name__)
FILES = (
    SAFE_WEIGHTS_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
)  # as looked for
OTHERS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
STRETCH = 2**22  # values looked at together
ORDERED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LFS_POINTER = b"version https://git-lfs"
AGAIN = "copy or download it again"
_Seen = dict[str, tuple[tuple[int, ...], float]]
"""By tensor: its shape, and its largest absolute value."""


def problems(
    path: str, key: str, settings: ModelSettings, tokenizer: PreTrainedTokenizerBase | None
) -> list[str]:
    """Return everything that is wrong with the weights at a path, one line each.

    Of a folder: the configuration (not a causal language model, quantised, an attention it has not), files
    that are missing, cut off, or Git LFS pointers, tensors that are missing, left over, or of another
    shape, a value that is not finite, matrices that are all zero, and ids of the tokenizer that the
    embedding has no row for. Pickled weights (``.bin``) are read with ``weights_only``: nothing in them is
    executed.
    Of a hub id nothing: `load_model` looks at its tensors when it has them.

    Costs 1.3 to 2.8 s of CPU for the 2.8 GB of Phi-1.5, 0.6 of them to build the architecture without
    memory; the rest is 1 to 3 GB/s of values, which are then in memory for the loading that follows.

    Args:
        path: folder or hub id.
        key: where it stands in the configuration, e.g. ``target.path``.
        settings: of the model.
        tokenizer: the model's; None where it could not be loaded.
    """
    if not is_local(path):
        return [f"{key}={path}: no such folder"] if looks_like_a_path(path) else []
    folder, name = Path(path).expanduser(), f"{key}={path}"
    try:
        check_folder(folder, key)
        config = read_config(settings, path, key)
        attention = None if settings.attention == "auto" else settings.attention
        model = empty_model(settings, config, attention, name)
    except ModelError as error:
        return [str(error)]
    if changes_logits(model):
        return [f"{name}: {CHANGED.format(kind=config.model_type)}"]
    embedding: Any = model.get_input_embeddings()
    found = misfits(tokenizer, embedding.num_embeddings, name) if tokenizer is not None else []
    files, damages = _weight_files(folder)
    seen, damaged = _seen(files)
    damages += damaged
    if seen and not damages:
        damages = _zero(seen, name) or _misplaced(type(model), config, seen)
    return found + [f"cannot load {name}: {damage}" for damage in damages]


class _Damaged(Exception):
    """What is wrong with a file, in words that follow its name."""


def _weight_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files transformers would read the weights from, and which of them are not there."""
    first = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if first is None:
        others = sorted(file.name for file in folder.iterdir() if file.suffix in OTHERS)
        beside = f"; {', '.join(others[:3])} is not looked for" if others else ""
        if any(name.endswith(".gguf") for name in others):
            beside += ": python -m loku_exp.from_gguf FILE --to DIR makes a folder of it"
        return [], [f"no weights in it ({' or '.join(FILES)}){beside}"]
    if first.name not in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
        return [first], []
    try:
        names = sorted(set(json.loads(first.read_bytes())["weight_map"].values()))
        there = [name for name in names if (folder / name).is_file()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], [f"{first.name} {_pointer(first) or f'is no index of weights; {AGAIN}'}"]
    missing = [name for name in names if name not in there]
    return [folder / name for name in there], [
        f"{name} is missing, and {first.name} names it; {AGAIN}" for name in missing
    ]


def _tensors(file: Path) -> dict[str, Any]:
    """Return a file's tensors by name, to be sliced; values are not read before.

    Raises:
        _Damaged: it cannot be read.
    """
    pointer = _pointer(file)
    if pointer:
        raise _Damaged(pointer)
    if file.suffix == ".safetensors":
        try:
            opened = safe_open(file, "pt")
        except SafetensorError as error:
            raise _Damaged(f"{_size(file) or f'cannot be read ({error})'}; {AGAIN}") from error
        return {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise _Damaged(
            "holds more than tensors, or is damaged; of pickled weights the tensors alone are read "
            "(weights_only), as no code is run: where you trust them, load them and save_pretrained"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise _Damaged(f"cannot be read ({str(error).splitlines()[0]}); {AGAIN}") from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise _Damaged("is not a dictionary of tensors; save the model with save_pretrained")
    return content


def _pointer(file: Path) -> str | None:
    with file.open("rb") as opened:
        found = opened.read(len(LFS_POINTER)) == LFS_POINTER
    return "is a Git LFS pointer, not the file itself; fetch it: git lfs pull" if found else None


def _size(file: Path) -> str | None:
    """Return how the size of a safetensors file differs from what its header says."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, size)))
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "is cut off or no safetensors file" if size else "is empty"
    expected = 8 + length + max(ends, default=0)
    return f"has {size} bytes, and its header says {expected}" if size != expected else None


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape if isinstance(tensor, Tensor) else tensor.get_shape())


def _seen(files: list[Path]) -> tuple[_Seen, list[str]]:
    """Return shape and largest value of each tensor, and what is wrong with the files."""
    seen: _Seen = {}
    damages = []
    for file in files:
        try:
            tensors = _tensors(file)
        except _Damaged as damage:
            damages.append(f"{file.name} {damage}")
            continue
        for name, values in tensors.items():
            largest = _largest(values)
            seen[name] = _shape(values), largest
            if not math.isfinite(largest):
                damages.append(
                    f"{file.name}: tensor {name} holds values that are not finite; {AGAIN}"
                )
    return seen, damages


def _zero(seen: _Seen, name: str) -> list[str]:
    """Return whether all matrices are zero; some that are get a warning."""
    matrices = {tensor: largest for tensor, (shape, largest) in seen.items() if len(shape) > 1}
    zero = [tensor for tensor, largest in matrices.items() if largest == 0]
    if zero and len(zero) == len(matrices):
        return [f"all of its matrices are zero, as in a file that was never written; {AGAIN}"]
    if zero:
        some = ", ".join(zero[:3])
        log.warning("%s: %d matrices are zero: %s", name, len(zero), some)
    return []


def _largest(tensor: Any) -> float:
    """Return the largest absolute value; what is not finite where there is such a value."""
    shape, largest = _shape(tensor), 0.0
    if 0 in shape:
        return 1.0
    rows = max(1, STRETCH // math.prod(shape[1:]))
    for start in range(0, shape[0] if shape else 1, rows):
        values = tensor[start : start + rows] if shape else tensor[...]
        known = values.dtype in ORDERED  # 8 bit floats are not
        most = max(torch.stack(torch.aminmax(values if known else values.float())).abs().tolist())
        if not math.isfinite(most):
            return most
        largest = max(largest, most)
    return largest


def _misplaced(kind: Any, config: Any, seen: _Seen) -> list[str]:
    """Return which tensors do not fit the architecture: transformers' own loading, without memory."""
    state = {name: torch.empty(shape, device="meta") for name, (shape, _) in seen.items()}
    try:
        with without_load_report():
            _, info = kind.from_pretrained(
                None,
                config=config,
                state_dict=state,
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except RuntimeError as error:  # tensors that cannot be put together, e.g. those of experts
        return [
            "its tensors cannot be put together as the architecture in config.json wants them; give the "
            f"config.json they were trained with ({' '.join(str(error).split())[:LONGEST_REASON]})"
        ]
    return tensor_problems(info)
