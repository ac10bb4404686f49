"""Rounding of weights: by hand and against a slow version."""

import pytest
import torch

from loku_exp.runtime.rounding import nf4_levels, rounded

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
