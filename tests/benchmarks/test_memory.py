"""What the table of memory counts, by hand."""

import pytest


def test_memory_of_a_model_by_hand():
    memory = pytest.importorskip("benchmarks.memory")
    llama = memory.shape("llama2", 32)
    assert llama.model == 6_738_415_616  # as published
    per_layer = 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert llama.adapter == 32 * per_layer == 79_953_920
    of = memory.Shape(model=100, adapter=10)
    assert memory.bytes_per_gpu(of, lora=True) == 100 * 2 + 10 * 16
    assert memory.bytes_per_gpu(of, lora=False) == 100 * 16
    assert memory.shape("gpt_neo_1_3b", 8).model == 1_315_575_808
