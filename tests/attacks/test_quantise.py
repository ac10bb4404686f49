"""Rounding of weights: by hand, against a slow version, and what of a model it touches."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from loku_exp.attacks.quantise import nf4_levels, problems, quantise, rounded
from loku_exp.methods.wrapper import Wrapper
from loku_exp.models.load import linear_layers, weight_matrix
from tests.methods import tiny

BY_HAND = {
    (8, "uniform"): [0.8, -0.10079, 0.05039, 0, 0.40315],  # a/127 * (127, -16, 8, 0, 64)
    (4, "uniform"): [0.8, -0.11429, 0, 0, 0.45714],  # a/7 * (7, -1, 0, 0, 4): 3.5 to even
    (4, "nf4"): [0.8, -0.07284, 0.06366, 0, 0.35257],  # a * (1, -.09105, .07958, 0, .44071)
}
NF4 = {
    0: -1,
    1: -0.6961928,
    6: -0.0910500,
    7: 0,
    8: 0.0795803,
    14: 0.7229568,
    15: 1,
}  # QLoRA's table


@pytest.mark.parametrize(("bits", "levels"), BY_HAND)
def test_by_hand(bits, levels):
    row = torch.tensor([[0.8, -0.1, 0.05, 0, 0.4]])
    expected = torch.tensor([BY_HAND[bits, levels]])
    torch.testing.assert_close(rounded(row, bits, levels, None), expected, atol=1e-5, rtol=0)


def test_levels_of_nf4_are_those_published():
    assert len(nf4_levels()) == 16
    for place, level in NF4.items():
        assert nf4_levels()[place] == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize("group", [None, 1, 4, 7, 1000])
@pytest.mark.parametrize(("bits", "levels"), BY_HAND)
def test_every_weight_goes_to_the_nearest_level_of_its_group(bits, levels, group):
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(0)) * 0.02
    found = rounded(weight, bits, levels, group).flatten().tolist()
    flat, size = weight.flatten().tolist(), group or 10
    steps = 2 ** (bits - 1) - 1
    grid = nf4_levels() if levels == "nf4" else [i / steps for i in range(-steps, steps + 1)]
    for place, value in enumerate(flat):
        first = place // size * size
        scale = max(map(abs, flat[first : first + size]))
        nearest = min((abs(level * scale - value), level * scale) for level in grid)[1]
        assert found[place] == pytest.approx(nearest, abs=1e-7)


@pytest.mark.parametrize(("bits", "levels"), BY_HAND)
def test_rounded_twice_is_rounded_once_and_zeros_stay(bits, levels):
    weight = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    weight[2] = 0
    once = rounded(weight, bits, levels, None)
    torch.testing.assert_close(rounded(once, bits, levels, None), once)
    assert not once[2].any()


def test_linear_layers_are_rounded_and_nothing_else():
    target = tiny.target()
    before, after = target.load(), quantise(target, bits=4, levels="uniform", group=None).load()
    layers = linear_layers(before)
    for name, weight in before.state_dict().items():
        same = torch.equal(weight, after.state_dict()[name])
        assert same != (name.removesuffix(".weight") in layers and name.endswith(".weight")), name
    name, layer = next(iter(layers.items()))
    torch.testing.assert_close(
        linear_layers(after)[name].weight, rounded(layer.weight, 4, "uniform", None)
    )


def test_an_adapter_is_merged_first(tmp_path):
    """What comes out is the rounded sum, not a rounded base with the adapter on it."""
    outcome = tiny.unlearned(tmp_path / "run", init=tiny.VANILLA)
    summed = outcome.subject.load().merge_and_unload()
    after = quantise(outcome.subject, bits=8, levels="uniform", group=None).load()
    for name, layer in linear_layers(summed).items():
        expected = rounded(layer.weight, 8, "uniform", None)
        torch.testing.assert_close(linear_layers(after)[name].weight, expected)


def test_a_wrapper_is_kept_and_what_it_wraps_is_rounded():
    whole = tiny.target()
    wrapped = replace(whole, load=lambda dtype=None: Wrapper(whole.load(dtype)).eval())
    model = quantise(wrapped, bits=4, levels="nf4", group=64).load()
    assert isinstance(model, Wrapper)
    expected = quantise(whole, bits=4, levels="nf4", group=64).load()
    torch.testing.assert_close(tiny.logits(model.wrapped), tiny.logits(expected))


def test_a_weight_stored_the_other_way_round_has_its_scales_by_output_channel():
    layer, twin = Conv1D(3, 5), nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(15.0).view(5, 3) ** 2)
    with torch.no_grad():
        twin.weight.copy_(weight_matrix(layer))
        weight_matrix(layer).copy_(rounded(weight_matrix(layer), 4, "uniform", None))
    expected = rounded(twin.weight, 4, "uniform", None)
    torch.testing.assert_close(layer.weight.T, expected)


def test_identity_follows_subject_and_knobs():
    knobs = [(8, "uniform", None), (4, "uniform", None), (4, "nf4", None), (4, "nf4", 64)]
    made = [quantise(tiny.target(), bits=b, levels=v, group=g).identity for b, v, g in knobs]
    other = replace(tiny.target(), identity="another model")
    made.append(quantise(other, bits=4, levels="nf4", group=64).identity)
    assert len({*made, tiny.target().identity}) == 6


def test_eight_bits_of_nf4_are_refused():
    fine = [problems("mine", bits=4, levels="nf4"), problems("mine", bits=8, levels="uniform")]
    assert fine == [[], []]
    (said,) = problems("mine", bits=8, levels="nf4")
    assert said.startswith("attacks.mine.bits=8: nf4 has 4; set it to that, or attacks.mine.levels")
