"""What the table of memory counts, by hand."""

import pytest


def test_memory_of_a_model_by_hand():
    memory = pytest.importorskip("benchmarks.memory")
    llama = memory.shape("llama2", 32)
    assert llama.model == 6_738_415_616  # as published
    per_layer = 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert llama.adapter == 32 * per_layer == 79_953_920
    block = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert llama.gathered == block + 2 * 32000 * 4096 + 4096
    of = memory.Shape(model=100, adapter=10, gathered=0)
    assert memory.bytes_per_gpu(of, 8, lora=True, sharded=False) == 100 * 2 + 10 * 16
    assert memory.bytes_per_gpu(of, 4, lora=True, sharded=True) == (100 * 2 + 10 * 16) / 4
    assert memory.bytes_per_gpu(of, 2, lora=False, sharded=True) == 100 * 16 / 2
    assert memory.shape("gpt_neo_1_3b", 8).model == 1_315_575_808
