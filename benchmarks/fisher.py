"""Per-example Fisher of a GPT-Neo-125M shape, beside the published batch-mean pass."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.measure import Row, interleaved
from loku_exp.compose import compose_config
from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.fisher import diagonal_fisher
from loku_exp.models import linear_layers

B, T = 4, 256


def rows() -> list[Row]:
    fields = dict(compose_config(["model=gpt_neo_125m"]).model.architecture or {})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(fields.pop("model_type"), **fields)
    )
    model.eval()
    layers = linear_layers(model)
    texts = [tuple(torch.randint(50257, (T,)).tolist()) for _ in range(B)]
    sequences = [Sequence(ids, ids) for ids in texts]
    batch = pad(sequences)
    sums = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}

    def ours() -> None:
        diagonal_fisher(model, layers, sequences)

    def published() -> None:
        """csm9493/efficient-llm-unlearning, measure_importance.py: square the batch's mean gradient."""
        model.zero_grad()
        count = int((batch["labels"] != -100).sum())
        model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
        for name, layer in layers.items():
            sums[name] += layer.weight.grad.detach() ** 2 * count

    seconds = interleaved({"ours": ours, "published": published}, repeats=3)
    return [
        Row(
            "per-example Fisher",
            seconds["ours"] / seconds["published"],
            0.85,
            "x the published batch-mean pass",
            f"GPT-Neo-125M shape, {B} x {T} tokens, fp32: {seconds['ours']:.2f} s, "
            f"published {seconds['published']:.2f} s",
        )
    ]
