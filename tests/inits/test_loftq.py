"""LoftQ is its algorithm: against a slow version, and what it is for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from loku_exp.inits.loftq import flops, loftq
from loku_exp.runtime.rounding import nf4_levels, rounded
from tests.inits.test_fila import SCALING, layer


def slow(weight: np.ndarray, rank: int, iterations: int, group: int) -> np.ndarray:
    """Algorithm 1 of LoftQ: a weight at a time, and a full decomposition."""
    levels, part = nf4_levels(), np.zeros_like(weight)
    for _ in range(iterations):
        flat = (weight - part).flatten()
        coarse = np.empty_like(flat)
        for first in range(0, len(flat), group):
            scale = max(abs(value) for value in flat[first : first + group])
            for place in range(first, min(first + group, len(flat))):
                coarse[place] = min(
                    (abs(level * scale - flat[place]), level * scale) for level in levels
                )[1]
        u, s, vh = np.linalg.svd(weight - coarse.reshape(weight.shape))
        part = (u[:, :rank] * s[:rank]) @ vh[:rank]
    return part


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_against_a_slow_version(iterations):
    matrix = layer(rank=3)
    (factors,) = loftq([matrix], iterations=iterations, group=16)
    expected = slow(matrix.weight.double().numpy(), 3, iterations, 16)
    found = (SCALING * factors.b @ factors.a).double().numpy()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_by_hand():
    """Of a row 1, .8 the levels are 1 and .72296: of (.0, .07704) all is lost, and rank 1 holds it."""
    matrix = replace(layer(rank=1), weight=torch.tensor([[1, 0.8]]))
    (factors,) = loftq([matrix], iterations=1, group=2)
    torch.testing.assert_close(
        SCALING * factors.b @ factors.a, torch.tensor([[0, 0.0770432]]), atol=1e-6, rtol=0
    )


def test_with_it_a_base_of_four_bits_is_nearer_to_the_weight():
    matrix = layer(rank=8)
    (factors,) = loftq([matrix])
    part = SCALING * factors.b @ factors.a
    with_it = matrix.weight - rounded(matrix.weight - part, 4, "nf4", 64) - part
    without = matrix.weight - rounded(matrix.weight, 4, "nf4", 64)
    assert with_it.norm() < 0.8 * without.norm()


def test_five_turns_cost_five_times():
    assert flops("loftq", [layer()], {}) == 5 * flops("loftq", [layer()], {"iterations": 1}) > 0
