"""A whole unlearning step at TOFU's lengths beside the published way, and its floor.

Published way (a rendering of csm9493/efficient-llm-unlearning, ``TOFU/dataloader.py``): every text padded
to 500 tokens, two forward passes that also compute the model's own loss, the hinge by one-hot masks over
the vocabulary, the model as transformers computes it. Its cost is the same for every micro-batch, so one
is timed; ours is the mean over several, drawn with a seed from the lengths of TOFU's forget10 (Phi-1.5's
tokenizer, `tofu_lengths.json`).
"""

import copy
import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.nn import functional

from benchmarks.extraction import build
from benchmarks.measure import Row, extra_memory, interleaved
from loku_exp.data.batches import Batch, Bucket, Stream, collate
from loku_exp.data.records import IGNORED, Sequence
from loku_exp.inits.interface import Factors
from loku_exp.losses.builtin import ihl
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.models.activations import fuse_gelu
from loku_exp.models.flops import StepFlops
from loku_exp.training.trainer import Objective

SETS = ("forget", "retain")
UPDATE, MICRO = 32, 2  # the official split
BATCHES = 4  # micro-batches ours is the mean of
PUBLISHED_LENGTH = 500
LAYERS, RANK = 4, 32
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"]


def rows() -> list[Row]:
    as_released = adapted(num_layers=LAYERS, attention_types=[[["global", "local"], LAYERS // 2]])
    model = copy.deepcopy(as_released)
    fuse_gelu(model)
    stream = Stream(texts(model.config.vocab_size), UPDATE, seed=0)
    batches = [collate([stream[k + j] for j in range(MICRO)]) for k in range(0, 2 * BATCHES, MICRO)]
    whole = {name: pad_to(batches[0][name], PUBLISHED_LENGTH) for name in SETS}
    objective = Objective(ihl, SETS)

    def one(batch: Batch, context: Callable[[], Any] = nullcontext, of: Any = model) -> None:
        of.zero_grad()
        with context():
            total = objective(of, batch).total
        total.backward()

    def ours() -> None:
        for batch in reversed(batches):  # the published way's last: its gradient stays
            one(batch)

    def published() -> None:
        as_released.zero_grad()
        published_loss(as_released, whole).backward()

    low = copy.deepcopy(model)
    for parameter in low.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)

    def in_bf16() -> None:
        with disable_input_dtype_casting(low):
            for batch in batches:
                one(batch, lambda: torch.autocast("cpu", torch.bfloat16), low)

    in_bf16()  # warms up, and the next one; the published way does so where its memory is looked at
    ours()
    gradients = {"ours": gradient_of(model)}
    memory = {
        "ours": sum(extra_memory(partial(one, b), warmed=True) for b in batches) / BATCHES,
        "published": extra_memory(published, warmed=True),
    }
    gradients["published"] = gradient_of(as_released)
    difference = gradients["ours"] - gradients["published"]
    error = float(difference.norm() / gradients["published"].norm())
    ways = {"bf16": in_bf16, "ours": ours, "published": published}
    seconds = interleaved(ways, repeats=2, warmed=True)
    seconds |= {name: seconds[name] / BATCHES for name in ("bf16", "ours")}
    step = StepFlops.of(model)
    flops = sum(step.flops(batch[name]) for batch in batches for name in SETS) / BATCHES
    detail = f"GPT-Neo-125M shape, {LAYERS} layers, r = {RANK}, {MICRO} + {MICRO} texts"
    times = {name: f"{value:.2f} s" for name, value in seconds.items()}
    saved = {name: f"{value / 2**20:.0f} MiB" for name, value in memory.items()}
    return [
        Row(
            "step: time saved, fp32",
            seconds["published"] / seconds["ours"],
            11,
            "x",
            f"{detail}: {times['ours']}, published {times['published']}",
            at_least=True,
        ),
        Row(
            "step: time saved, bf16 weights and autocast",
            seconds["published"] / seconds["bf16"],
            25,
            "x",
            f"{times['bf16']}, published in fp32 {times['published']}",
            at_least=True,
        ),
        Row(
            "step: memory saved",
            memory["published"] / memory["ours"],
            12,
            "x",
            f"fp32: {saved['ours']}, published {saved['published']}",
            at_least=True,
        ),
        Row("step: gradient beside the published", 1e6 * error, 10, "1e-6 relative", "fp32"),
        Row(
            "step: share of its matrix products",
            flops / rate() / seconds["ours"],
            0,
            "of the time",
            f"{flops / 1e9:.0f} GFLOP at the speed of a 256 x 768 x 3072 product",
        ),
        *padding(),
    ]


def adapted(**fields: Any) -> Any:
    """Return a shape with random weights and a random adapter, so that A and B both have gradients."""
    torch.manual_seed(0)
    model = build("gpt_neo_125m", ours=False, **fields)
    adapter = Adapter(RANK, 2 * RANK, 0.0, TARGETS)
    factors = {
        layer.name: Factors(
            layer.name,
            torch.randn(RANK, layer.weight.shape[1]) * 0.02,
            torch.randn(len(layer.weight), RANK) * 0.02,
        )
        for layer in adapter.layers(model, 0)
    }
    return attach(model, factors, adapter)[0].train()


def texts(vocabulary: int) -> dict[str, list[Sequence]]:
    """Return forget and retain texts of TOFU's lengths, of random tokens."""
    lengths = json.loads((Path(__file__).parent / "tofu_lengths.json").read_text())["lengths"]
    generator = torch.Generator().manual_seed(0)

    def text(length: int, num_labels: int) -> Sequence:
        ids = tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())
        prompt = length - num_labels
        return Sequence(ids, (IGNORED,) * prompt + ids[prompt:])

    return {name: [text(*pair) for pair in lengths] for name in SETS}


def pad_to(batch: Any, length: int) -> dict[str, Tensor]:
    """Pad a batch further, as the published code does to every text."""
    more = (0, length - batch["input_ids"].shape[1])
    return {
        "input_ids": functional.pad(batch["input_ids"], more),
        "attention_mask": functional.pad(batch["attention_mask"], more),
        "labels": functional.pad(batch["labels"], more, value=IGNORED),
    }


def published_loss(model: Any, batch: dict[str, dict[str, Tensor]]) -> Tensor:
    """IHL on the forget texts and cross-entropy on the retain texts, the released way."""
    outputs = model(**batch["forget"])  # its loss is computed and not used
    labels = batch["forget"]["labels"][:, 1:].flatten()
    logits = outputs.logits[:, :-1].flatten(0, 1)[labels != IGNORED]
    labels = labels[labels != IGNORED]
    inside = torch.all((logits >= 0) & (logits <= 1))
    probabilities = logits if inside else logits.softmax(dim=-1)
    is_label = functional.one_hot(labels, probabilities.shape[-1]).bool()
    others = probabilities[~is_label].view(len(labels), -1)
    hinge = (1 + probabilities[is_label] - others.max(dim=-1).values).mean()
    return hinge + model(**batch["retain"]).loss


def gradient_of(model: Any) -> Tensor:
    """Return all gradients in one vector."""
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(gradients) if gradients else torch.zeros(0)


def rate() -> float:
    """Return the FLOPs a second of a matrix product of a step's size."""
    a, b = torch.randn(256, 768), torch.randn(768, 3072)
    seconds = interleaved({"product": lambda: [a @ b for _ in range(20)]}, repeats=3)["product"]
    return 20 * 2 * 256 * 768 * 3072 / seconds


def padding() -> list[Row]:
    """Count the tokens of whole trainings, sorted by length inside an update and as drawn."""
    sets, found = texts(1000), []
    for micro in (MICRO, 8):
        ways = {"drawn": None, "sorted": Bucket(1, UPDATE, micro)}
        tokens = {
            name: _tokens(Stream(sets, 62 * UPDATE, seed=0, bucket=bucket), micro)
            for name, bucket in ways.items()
        }
        found.append(
            Row(
                f"bucketing: tokens computed, micro-batches of {micro}",
                tokens["sorted"],
                1.05 if micro == MICRO else 1.2,
                "of the real ones",
                f"forget10's 62 updates of {UPDATE}, training.bucket=1; as drawn {tokens['drawn']:.2f}",
            )
        )
    return found


def _tokens(stream: Stream, micro: int) -> float:
    """Return padded tokens as a multiple of the real ones."""
    padded = real = 0
    for start in range(0, len(stream), micro):
        for name, rows_of in stream.sequences.items():
            lengths = [
                len(rows_of[row].ids)
                for item in stream.order[name][start : start + micro]
                for row in item
            ]
            padded += len(lengths) * max(lengths)
            real += sum(lengths)
    return padded / real
