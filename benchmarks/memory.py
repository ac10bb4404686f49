"""What parameters, gradients and optimiser state take on each GPU; nothing is allocated.

Parameters are counted on the meta device. Not in the table: activations, logits, the allocator's reserve.

Usage:
    python -m benchmarks.memory [--rank 32]

It prints the table and writes benchmarks/memory.md.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.methods.adapter import Adapter

MODELS = {
    "gpt_neo_1_3b": "GPT-Neo 1.3B",
    "gpt_neo_2_7b": "GPT-Neo 2.7B",
    "phi": "Phi-1.5",
    "llama2": "Llama-2 7B",
}
GIB = 2**30
FP32, BF16, ADAM = 4, 2, 8  # bytes a parameter; Adam keeps two fp32 moments
TRAINED = FP32 + FP32 + ADAM  # parameter, gradient, moments


@dataclass(frozen=True)
class Shape:
    """Numbers of parameters.

    Attributes:
        model: of the model.
        adapter: of A and B.
    """

    model: int
    adapter: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--rank", type=int, default=32, help="of the adapter, on all linear layers")
    rank = parser.parse_args().rank
    text = markdown({title: shape(name, rank) for name, title in MODELS.items()}, rank)
    print(text)
    Path("benchmarks/memory.md").write_text(text)


def shape(name: str, rank: int) -> Shape:
    """Count the parameters of a model of ``conf/model`` with an adapter on all its linear layers."""
    model_config = compose_config([f"model={name}", "dataset=toy_tofu"]).model
    fields = dict(model_config.architecture or {})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(fields.pop("model_type"), **fields)
        )
    adapter = Adapter(rank, 2 * rank, 0.0, model_config.lora_targets["all"])
    total = sum(p.numel() for p in model.parameters())
    layers = adapter.layers(model, seed=0)
    return Shape(total, sum(rank * sum(layer.weight.shape) for layer in layers))


def bytes_per_gpu(of: Shape, *, lora: bool) -> int:
    """Return bytes of parameters, gradients and optimiser state on a GPU; each of several holds them all.

    With LoRA the model is bf16 and frozen; A, B, their gradients and moments are fp32. Without, all of
    the model's are.
    """
    return of.model * BF16 + of.adapter * TRAINED if lora else of.model * TRAINED


def markdown(shapes: dict[str, Shape], rank: int) -> str:
    """Return the table in GiB."""
    lines = [f"| GiB on each GPU | LoRA, rank {rank}, all layers | all weights (`lora=none`) |"]
    lines.append("|---|---:|---:|")
    for title, of in shapes.items():
        cells = (f"{bytes_per_gpu(of, lora=lora) / GIB:.1f}" for lora in (True, False))
        lines.append(f"| {title}, {of.model / 1e9:.2f} G parameters | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
