"""How time and memory grow with tokens, vocabulary, rank, forget set and layers.

Usage:
    python -m benchmarks.growth

Writes ``growth.json``, ``growth.png`` and ``growth.md`` beside this file. From one base point each size is
doubled alone; the numbers in the plot are exponents: the slope of log time over log size, fitted by least
squares, 1 is linear, 0 constant. Time is the processor's, of one thread, so that a busy machine changes
little. Memory is what the allocator would be asked for at most at once: the peak of live tensors above what
was there before.
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.extraction import build
from benchmarks.growth_plot import plot
from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.fisher.blockwise import sweep_fisher
from loku_exp.fisher.hooks import diagonal_fisher
from loku_exp.inits.fila import fila
from loku_exp.inits.interface import Importance
from loku_exp.losses.builtin import ihl
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.models.load import linear_layers
from loku_exp.stages.provenance import provenance
from loku_exp.training.trainer import Objective

BASE = {"tokens": 64, "vocabulary": 4096, "rank": 16, "texts": 4, "layers": 4}
VARIED = {
    "tokens": (64, 128, 256, 512),
    "vocabulary": (4096, 8192, 16384, 32768),
    "rank": (8, 16, 32, 64),
    "texts": (4, 8, 16, 32),
    "layers": (2, 4, 8, 16),
}
MEASURED = {  # what is measured against what; rank concerns neither Fisher
    "step": ("tokens", "vocabulary", "rank", "texts", "layers"),
    "fisher, hooks": ("tokens", "vocabulary", "texts", "layers"),
    "fisher, sweep": ("tokens", "vocabulary", "texts", "layers"),
    "low-rank step": ("rank", "layers"),
}
WIDTH = 128
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"]


def main() -> None:
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for what, names in MEASURED.items():
        for name in names:
            points = []
            for value in VARIED[name]:
                way = prepared(what, **BASE | {name: value})
                seconds, memory = seconds_of(way), memory_of(way)
                points.append({"size": value, "seconds": seconds, "bytes": memory})
            fits = {
                key: exponent([(p["size"], p[key]) for p in points]) for key in ("seconds", "bytes")
            }
            found.append({"what": what, "against": name, "points": points, "exponents": fits})
            print(
                f"{what} / {name}: time {fits['seconds']:.2f}, memory {fits['bytes']:.2f}",
                flush=True,
            )
    content = {"where": provenance(), "base": BASE | {"width": WIDTH}, "growth": found}
    folder = Path(__file__).parent
    (folder / "growth.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "growth.md").write_text(markdown(content))
    plot(found, VARIED, folder / "growth.png")


def prepared(
    what: str, *, tokens: int, vocabulary: int, rank: int, texts: int, layers: int
) -> Callable[[], object]:
    """Return one run of a part at these sizes."""
    kinds = [[["global", "local"], layers // 2]]
    model = build(
        "scratch_neo",
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_layers=layers,
        attention_types=kinds,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (texts, tokens), generator=generator).tolist()
    rows = [Sequence(tuple(row), tuple(row)) for row in ids]
    linear = linear_layers(model)
    if what == "fisher, hooks":
        return lambda: diagonal_fisher(model, linear, rows)
    if what == "fisher, sweep":
        half = texts // 2
        return lambda: sweep_fisher(model, linear, rows[:half], rows[half:], lambda *_: None)
    adapter = Adapter(rank, 2 * rank, 0.0, TARGETS)
    shapes = adapter.layers(model, 0)
    known = Importance({layer.name: torch.ones(len(layer.weight)) for layer in shapes}, 0.0)

    def low_rank() -> dict[str, Any]:
        return {factors.name: factors for factors in fila(shapes, lambda **_: known)}

    if what == "low-rank step":
        return low_rank
    adapted, _ = attach(model, low_rank(), adapter)
    batch, objective = pad(rows), Objective(ihl, ("forget", "retain"))

    def step() -> None:
        objective(adapted, {"forget": batch, "retain": batch}).total.backward()
        adapted.zero_grad()

    return step


def seconds_of(way: Callable[[], object], repeats: int = 5) -> float:
    """Return the least processor seconds of a run, after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        way()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def memory_of(way: Callable[[], object]) -> int:
    """Return the peak of live tensors that a run makes, in bytes."""
    with _Live() as live:
        way()
    return live.peak


class _Live(TorchDispatchMode):
    """Adds up the storages made under it that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {id(x.untyped_storage()) for x in args if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in known:
                storage = tensor.untyped_storage()
                self.storages[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self.storages.values()))
        return result


def exponent(points: list[tuple[float, float]]) -> float:
    """Return the slope of log value over log size, by least squares."""
    xs, ys = ([math.log(point[k]) for point in points] for k in (0, 1))
    return statistics.linear_regression(xs, ys).slope


def markdown(content: dict[str, Any]) -> str:
    """Return the table for people."""
    base = ", ".join(f"{name} {value}" for name, value in content["base"].items())
    lines = [
        f"Base point: {base}; GPT-Neo shape, fp32, one thread. Each size is doubled alone.",
        "",
        "| what | against | sizes | ms | MiB | exponent of time | of memory |",
        "|---|---|---|---|---|---:|---:|",
    ]
    for row in content["growth"]:
        cells = {
            "sizes": [str(p["size"]) for p in row["points"]],
            "ms": [f"{1e3 * p['seconds']:.0f}" for p in row["points"]],
            "MiB": [f"{p['bytes'] / 2**20:.1f}" for p in row["points"]],
        }
        lists = " | ".join(", ".join(values) for values in cells.values())
        fits = row["exponents"]
        lines.append(
            f"| {row['what']} | {row['against']} | {lists} | {fits['seconds']:.2f} | {fits['bytes']:.2f} |"
        )
    where = content["where"]
    packages = ", ".join(f"{name} {where['packages'][name]}" for name in ("torch", "transformers"))
    lines += [
        "",
        "1 is linear, 0 constant; below 1 a part that does not grow is in it, above 1 attention's T² is.",
        "",
        f"`python -m benchmarks.growth`; {where['hardware']['processor']}, {packages}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
