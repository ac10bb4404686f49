"""The estimate of what a backward pass needs, and what is decided with it."""

import dataclasses
import logging

import pytest
import torch
from torch import nn
from transformers import GPTNeoForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.methods.planning import is_checkpointed, plan_of, stream_of
from loku_exp.models import memory
from loku_exp.models.head import hidden_before_head
from tests.helpers import tiny_model, tiny_records
from tests.models.test_flops import build

CPU = torch.device("cpu")


def kept(model: nn.Module, texts: int, length: int) -> int:
    """The slow way: walk the graph of the whole batch and add up what its nodes saved."""
    hidden = hidden_before_head(model, pad([Sequence((1,) * length, (1,) * length)] * texts))
    there = (*model.parameters(), *model.buffers())
    weights = {tensor.untyped_storage().data_ptr() for tensor in there}
    storages, seen, queue = {}, set(), [hidden.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        queue += [following for following, _ in node.next_functions]
        for name in (name for name in dir(node) if name.startswith("_saved_")):
            value = getattr(node, name)
            for tensor in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    if storage.data_ptr() not in weights:
                        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("shape", ["neo", "llama", "phi"])
@pytest.mark.parametrize(("texts", "length"), [(1, 16), (1, 60), (4, 48)])
def test_estimate_equals_a_walk_through_the_graph(shape, texts, length):
    model = build(shape)
    estimate = memory.activation_bytes(model, texts, length)
    assert estimate == pytest.approx(kept(model, texts, length), rel=0.1)


def test_estimate_does_not_count_what_is_there_without_a_graph():
    """GPT-Neo keeps a mask of its whole context in each layer, 4 MiB at 2,048 tokens."""
    estimates = []
    for context in (64, 1024):
        torch.manual_seed(0)
        config = tiny_model().config
        config.max_position_embeddings = context
        model = GPTNeoForCausalLM(config).eval()
        estimates.append(memory.activation_bytes(model, 2, 40))
    assert estimates[0] == estimates[1]


def test_estimate_leaves_the_random_state_and_the_gradients_alone():
    model, before = tiny_model(), torch.random.get_rng_state()
    memory.activation_bytes(model, 2, 20)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())


def test_free_memory_of_this_machine_is_some():
    assert 2**20 < memory.free_memory(CPU) < 2**50
    assert memory.fits(0, CPU)
    assert not memory.fits(2**60, CPU)


@pytest.mark.parametrize(
    ("wanted", "free", "on"),
    [("auto", 2**40, False), ("auto", 10_000, True), (True, 2**40, True), (False, 10_000, False)],
)
def test_checkpointing_is_on_where_activations_would_not_fit(wanted, free, on, monkeypatch, caplog):
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    recipe = compose_config([]).training.model_copy(
        update={"batch_size": 2, "micro_batch_size": 2, "gradient_checkpointing": wanted}
    )
    records = tiny_records()
    plan = plan_of(recipe, len(records.forget))
    stream = stream_of(records, ("forget", "retain"), recipe, plan, 0)
    with caplog.at_level(logging.INFO):
        assert is_checkpointed(tiny_model(), stream, recipe, plan) is on
    assert ("checkpointing is on" in caplog.text) is (wanted == "auto" and on)


def test_checkpointing_counts_every_retain_example_of_a_micro_batch(monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "activation_bytes", lambda _, *shape: asked.append(shape) or 0)
    recipe = compose_config(["dataset=toy_tdec"]).training.model_copy(
        update={"retain_batch_size": 12, "micro_batch_size": 2}
    )
    records = dataclasses.replace(tiny_records())
    plan = plan_of(recipe, len(records.forget))
    stream = stream_of(records, ("forget", "retain"), recipe, plan, 0)
    is_checkpointed(tiny_model(), stream, recipe, plan)
    longest = max(len(r.answer.ids) for r in records.forget + records.retain)
    assert asked == [(2 * (1 + 2), longest)]
