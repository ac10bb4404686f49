"""The sweep against the hooks, to the last bit; and against the counter of operations."""

import pytest
import torch

from loku_exp.errors import ModelError
from loku_exp.fisher.blockwise import blocks_of, cannot_sweep, sweep_fisher
from loku_exp.fisher.hooks import reduce_fisher, told_apart
from loku_exp.models.flops import fisher_flops
from loku_exp.models.load import linear_layers
from tests.helpers import random_sequence, tiny_model
from tests.models import architectures
from tests.models.test_flops import build, counted

SHAPES = [(9, 3), (5, 0), (7, 5), (12, 4), (6, 1), (8, 2), (4, 2)]  # length, masked tokens
SEQUENCES = [random_sequence(*shape, 61, seed) for seed, shape in enumerate(SHAPES)]
FORGET, RETAIN = SEQUENCES[:3], SEQUENCES[3:]


def measured(way, model, **sizes):
    found = {}

    def reducer(name, forget, retain):
        assert name not in found
        found[name] = (forget, retain)

    way(model, linear_layers(model), FORGET, RETAIN, reducer, **sizes)
    return found


@pytest.mark.parametrize("shape", ["neo", "llama", "phi"])
@pytest.mark.parametrize(("group_size", "micro_batch_size"), [(1, 1), (1, 3), (2, 1), (4, 4)])
def test_sweep_equals_the_hooks_bitwise(shape, group_size, micro_batch_size):
    model = build(shape)
    sizes = {"group_size": group_size, "micro_batch_size": micro_batch_size}
    hooks, sweep = measured(reduce_fisher, model, **sizes), measured(sweep_fisher, model, **sizes)
    assert hooks.keys() == sweep.keys() == linear_layers(model).keys()
    for name, (forget, retain) in hooks.items():
        assert forget.any()
        assert retain.any()
        assert torch.equal(sweep[name][0], forget), name
        assert torch.equal(sweep[name][1], retain), name


def test_blocks_that_are_called_with_more_than_hidden_states_by_position():
    """GPT-2 gives its cache, its mask and two more so."""
    hooked, swept = (
        measured(way, architectures.build("gpt2"), group_size=1, micro_batch_size=1)
        for way in (reduce_fisher, sweep_fisher)
    )
    assert swept.keys() == hooked.keys()
    for name, pair in hooked.items():
        assert all(map(torch.equal, swept[name], pair)), name


def test_sweep_of_a_bf16_model_has_fp32_sums_and_equals_the_hooks():
    model = tiny_model(dtype=torch.bfloat16)
    hooks, sweep = measured(reduce_fisher, model), measured(sweep_fisher, model)
    for name, sums in sweep.items():
        for ours, theirs in zip(sums, hooks[name], strict=True):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, theirs)


def test_sweep_goes_from_the_last_block_to_the_first():
    names = list(measured(sweep_fisher, tiny_model()))
    blocks = [int(name.split(".")[2]) for name in names]
    assert blocks == sorted(blocks, reverse=True)


def test_sweep_leaves_the_model_as_it_was():
    model = tiny_model()
    model.lm_head.weight.requires_grad_(False)
    before = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    measured(sweep_fisher, model)
    for name, parameter in model.named_parameters():
        assert (parameter.requires_grad, parameter.grad) == (before[name][0], None)
        assert torch.equal(parameter, before[name][1])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_sweep_refuses_a_model_that_is_not_one_list_of_blocks():
    model = tiny_model()
    layers = linear_layers(model) | {"elsewhere": torch.nn.Linear(2, 2)}
    assert blocks_of(model, layers) is None
    with pytest.raises(ModelError, match="fisher_pass=hooks"):
        sweep_fisher(model, layers, FORGET, RETAIN, lambda *_: None)


def test_sweep_refuses_blocks_that_run_twice():
    model = tiny_model()
    model.transformer.h.append(model.transformer.h[0])
    with pytest.raises(ModelError, match="run once, in order"):
        measured(sweep_fisher, model)


@pytest.mark.parametrize("shape", ["neo", "llama", "phi"])
def test_flops_of_a_sweep_equal_the_counter(shape):
    model = build(shape)
    layers = linear_layers(model)
    looked = counted(lambda: (cannot_sweep(model, layers), told_apart(model, layers, 1, 1)))
    expected = counted(lambda: measured(sweep_fisher, model)) - looked
    ours = sum(fisher_flops(model, layers, rows, sweep=True) for rows in (FORGET, RETAIN))
    assert ours == expected


@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float32, 0.01), (torch.float64, 0.01), (torch.bfloat16, 0.3)]
)
def test_a_small_share_that_goes_past_a_block_is_seen(dtype, share):
    """Of a model whose slopes are small as well: the difference is one of shares."""
    model = tiny_model(dtype=dtype)
    model.transformer.ln_f.weight.data *= 0.01
    assert cannot_sweep(model, linear_layers(model)) is None
    first, last = model.transformer.h
    kept = {}
    first.register_forward_hook(lambda _, __, out: kept.update(out=out[0]))
    last.register_forward_hook(lambda _, __, out: (out[0] + share * kept["out"], *out[1:]))
    assert "hand on more than hidden states" in cannot_sweep(model, linear_layers(model))
