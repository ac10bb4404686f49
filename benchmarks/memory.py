"""What parameters, gradients and optimiser state take on each GPU; nothing is allocated.

Parameters are counted on the meta device. Not in the table: activations, logits, the allocator's reserve,
and what FSDP2 holds gathered while it works (one block and what lies outside the blocks; last column).

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
from loku_exp.runtime.distributed import block_classes

MODELS = {
    "gpt_neo_1_3b": "GPT-Neo 1.3B",
    "gpt_neo_2_7b": "GPT-Neo 2.7B",
    "phi": "Phi-1.5",
    "llama2": "Llama-2 7B",
}
GPUS = (1, 2, 4, 8)
GIB = 2**30
FP32, BF16, ADAM = 4, 2, 8  # bytes a parameter; Adam keeps two fp32 moments
TRAINED = FP32 + FP32 + ADAM  # parameter, gradient, moments


@dataclass(frozen=True)
class Shape:
    """Numbers of parameters.

    Attributes:
        model: of the model.
        adapter: of A and B.
        gathered: of one block and of what lies outside the blocks.
    """

    model: int
    adapter: int
    gathered: int


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
    blocks = [
        sum(p.numel() for p in module.parameters())
        for module in model.modules()
        if type(module).__name__ in block_classes(model)
    ]
    return Shape(
        total,
        sum(rank * sum(layer.weight.shape) for layer in adapter.layers(model, seed=0)),
        total - sum(blocks) + max(blocks),
    )


def bytes_per_gpu(of: Shape, gpus: int, *, lora: bool, sharded: bool) -> float:
    """Return bytes of parameters, gradients and optimiser state on each of some GPUs.

    With LoRA the model is bf16 and frozen; A, B, their gradients and moments are fp32. Without, all of
    the model's are. DDP keeps all of it on each GPU, FSDP2 its share.
    """
    total = of.model * BF16 + of.adapter * TRAINED if lora else of.model * TRAINED
    return total / gpus if sharded else float(total)


def markdown(shapes: dict[str, Shape], rank: int) -> str:
    """Return the table in GiB."""
    lines = [
        "| GiB on each GPU | | one GPU, or DDP on any number | "
        + " | ".join(f"FSDP2 on {n}" for n in GPUS if n > 1)
        + " | gathered by FSDP2 |",
        "|---|---|" + "---:|" * (len(GPUS) + 1),
    ]
    for title, of in shapes.items():
        for lora in (True, False):
            values = [bytes_per_gpu(of, 1, lora=lora, sharded=False)]
            values += [bytes_per_gpu(of, n, lora=lora, sharded=True) for n in GPUS if n > 1]
            values.append(of.gathered * (BF16 if lora else FP32))
            what = f"LoRA, rank {rank}, all layers" if lora else "all weights (`lora=none`)"
            cells = " | ".join(f"{value / GIB:.1f}" for value in values)
            lines.append(f"| {title}, {of.model / 1e9:.2f} G parameters | {what} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
