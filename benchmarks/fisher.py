"""The Fisher of a GPT-Neo-125M shape, beside the published batch-mean pass."""

import copy

import torch
from torch import Tensor

from benchmarks.extraction import build
from benchmarks.measure import Row, extra_memory, interleaved
from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.fisher.blockwise import sweep_fisher
from loku_exp.fisher.hooks import diagonal_fisher, row_weights
from loku_exp.models.activations import fuse_gelu
from loku_exp.models.load import linear_layers

B, T = 4, 128
TOGETHER = 2  # texts of a forward pass, as a run has it on a CPU


def rows() -> list[Row]:
    """Time and memory of both our ways on one set's texts; the published way adds both sets' sums."""
    as_released = build("gpt_neo_125m", ours=False)
    model = copy.deepcopy(as_released)
    fuse_gelu(model)
    layers = linear_layers(model)
    sequences = random_texts(B, T)
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
            gradient = layer.weight.grad
            assert gradient is not None
            sums[name] += gradient.detach() ** 2 * count
        as_released.zero_grad()
        as_released.requires_grad_(False)
        return sums

    ways = {"ours": hooks, "sweep": sweep, "published": published}
    hooks()  # warms up; the other two do so where their memory is looked at
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


def random_texts(count: int, length: int) -> list[Sequence]:
    """Return texts of random tokens, all labelled."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(50257, (count, length), generator=generator).tolist()
    return [Sequence(tuple(row), tuple(row)) for row in ids]
