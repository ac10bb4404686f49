"""FILA's init of a GPT-Neo-125M shape on two cores: the Fisher of a part of the texts, and the rest."""

import time

import torch
from torch import Tensor

from benchmarks.extraction import build
from benchmarks.fisher import TOGETHER, random_texts
from benchmarks.measure import Row
from loku_exp.fisher.hooks import reduce_fisher, row_weights
from loku_exp.inits.fila import fila
from loku_exp.inits.interface import Importance
from loku_exp.methods.adapter import Adapter
from loku_exp.models.load import linear_layers

TEXTS, TOKENS = 32, 200  # of each set
MEASURED = 4  # of them
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"]


def rows() -> list[Row]:
    model = build("gpt_neo_125m")
    torch.set_num_threads(2)
    layers = linear_layers(model)
    texts = random_texts(2 * MEASURED, TOKENS)
    weights: dict[str, Tensor] = {}

    def reducer(name: str, forget: Tensor, retain: Tensor) -> None:
        weights[name] = row_weights(forget, retain, 1e-5)

    start = time.perf_counter()
    both = texts[:MEASURED], texts[MEASURED:]
    reduce_fisher(model, layers, *both, reducer, micro_batch_size=TOGETHER)
    fisher = (time.perf_counter() - start) * TEXTS / MEASURED
    adapter = Adapter(32, 64, 0.0, TARGETS)
    start = time.perf_counter()
    made = fila(adapter.layers(model, 0), lambda **_: Importance(weights, 0.0))
    count = sum(1 for _ in made)
    low_rank = time.perf_counter() - start
    return [
        Row(
            "FILA init",
            fisher + low_rank,
            60,
            "s",
            f"GPT-Neo-125M shape, {TEXTS} + {TEXTS} texts of {TOKENS} tokens (Fisher {fisher:.0f} s, from "
            f"{MEASURED} + {MEASURED}), rank 32 of {count} layers ({low_rank:.1f} s), two threads",
        )
    ]
