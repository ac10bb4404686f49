"""The Fisher and FILA's init of a GPT-Neo-125M shape, beside the published batch-mean pass."""

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.extraction import build
from benchmarks.measure import Row, extra_memory, interleaved
from loku_exp.adapters import Adapter
from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.fisher import diagonal_fisher, reduce_fisher, row_weights
from loku_exp.fisher_sweep import sweep_fisher
from loku_exp.inits.fila import fila
from loku_exp.inits.layers import Importance
from loku_exp.models import linear_layers

B, T = 4, 128
TOGETHER = 2  # texts of a forward pass, as a run has it on a CPU
TDEC, TDEC_TOKENS, MEASURED = (
    32,
    200,
    4,
)  # texts of each set, and how many of them are measured here
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"]


def rows() -> list[Row]:
    model = build("gpt_neo_125m", weights=None)
    return [
        *_beside_published(model, build("gpt_neo_125m", ours=False, weights=None)),
        _init(model),
    ]


def _beside_published(model: Any, as_released: Any) -> list[Row]:
    """Time and memory of both our ways on one set's texts; the published way adds both sets' sums."""
    layers = linear_layers(model)
    sequences = _texts(B, T)
    one, other = sequences[: B // 2], sequences[B // 2 :]
    batch = pad(sequences)
    weights: dict[str, Tensor] = {}

    def reducer(name: str, forget: Tensor, retain: Tensor) -> None:
        weights[name] = row_weights(forget, retain, 1e-5)

    def hooks() -> None:
        diagonal_fisher(model, layers, sequences, micro_batch_size=TOGETHER)

    def sweep() -> None:
        sweep_fisher(model, layers, one, other, reducer, micro_batch_size=TOGETHER)

    def published() -> dict[str, Tensor]:
        """csm9493/efficient-llm-unlearning, measure_importance.py: square the batch's mean gradient."""
        as_released.requires_grad_(True)
        as_released.zero_grad()
        linear = linear_layers(as_released)
        sums = {name: torch.zeros_like(layer.weight) for name, layer in linear.items()}
        count = int((batch["labels"] != -100).sum())
        as_released(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
        for name, layer in linear.items():
            sums[name] += layer.weight.grad.detach() ** 2 * count
        as_released.zero_grad()
        as_released.requires_grad_(False)
        return sums

    ways = {"ours": hooks, "sweep": sweep, "published": published}
    for way in ways.values():
        way()  # warms up
    memory = {
        "sweep": extra_memory(sweep, warmed=True),
        "published": extra_memory(published, warmed=True),
    }
    seconds = interleaved(ways, repeats=2, warmed=True)
    sums = 4 * sum(layer.weight.numel() for layer in layers.values())
    memory["published"] += sums  # of the other set, which it keeps beside this one
    detail = f"GPT-Neo-125M shape, {B} x {T} tokens, fp32"
    mebibytes = {name: f"{value / 2**20:.0f} MiB" for name, value in memory.items()}
    return [
        Row(
            "per-example Fisher, hooks",
            seconds["ours"] / seconds["published"],
            0.85,
            "x the published batch-mean pass",
            f"{detail}: {seconds['ours']:.2f} s, published {seconds['published']:.2f} s",
        ),
        Row(
            "per-example Fisher, layer sweep: time",
            seconds["sweep"] / seconds["published"],
            1.0,
            "x the published batch-mean pass",
            f"{detail}, two sets: {seconds['sweep']:.2f} s",
        ),
        Row(
            "per-example Fisher, layer sweep: memory",
            memory["sweep"] / memory["published"],
            0.25,
            "of the published pass",
            f"{detail}, both sets' sums: {mebibytes['sweep']}, published {mebibytes['published']}",
        ),
    ]


def _init(model: Any) -> Row:
    """Time FILA's init: the Fisher on a part of TDEC's sets, scaled up, and the low-rank step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    layers = linear_layers(model)
    texts = _texts(2 * MEASURED, TDEC_TOKENS)
    weights: dict[str, Tensor] = {}

    def reducer(name: str, forget: Tensor, retain: Tensor) -> None:
        weights[name] = row_weights(forget, retain, 1e-5)

    start = time.perf_counter()
    both = texts[:MEASURED], texts[MEASURED:]
    reduce_fisher(model, layers, *both, reducer, micro_batch_size=TOGETHER)
    fisher = (time.perf_counter() - start) * TDEC / MEASURED
    adapter = Adapter(32, 64, 0.0, TARGETS)
    start = time.perf_counter()
    made = fila(adapter.layers(model, 0), lambda **_: Importance(weights, 0.0))
    count = sum(1 for _ in made)
    low_rank = time.perf_counter() - start
    torch.set_num_threads(threads)
    return Row(
        "FILA init",
        fisher + low_rank,
        60,
        "s",
        f"GPT-Neo-125M shape, {TDEC} + {TDEC} texts of {TDEC_TOKENS} tokens (Fisher {fisher:.0f} s, from "
        f"{MEASURED} + {MEASURED}), rank 32 of {count} layers ({low_rank:.1f} s), two threads",
    )


def _texts(count: int, length: int) -> list[Sequence]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(50257, (count, length), generator=generator).tolist()
    return [Sequence(tuple(row), tuple(row)) for row in ids]
