"""ROL, the regulariser of ReGLU: by hand, its gradient, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch

from loku_exp.config.groups import conf_dir
from loku_exp.inits.interface import Factors
from loku_exp.losses.regularisers import problems, rol
from tests.helpers import assert_defaults_are_the_yamls


def started(**by_layer):
    """Factors of layers by their B; A plays no part."""
    return {n: Factors(n, torch.zeros(b.shape[1], 3), b) for n, b in by_layer.items()}


def moments_of(**by_layer):
    """What a measure would give; what it was asked is kept in `asked`."""
    asked = []

    def moments(names, **how):
        asked.append(how)
        return iter([by_layer[name] for name in names])

    return moments, asked


def test_by_hand():
    """H_r = {(0, 1)}: Q = (0, 1), B = (.6, .8): ||B^T Q||^2 = .64; weighted by a half, .32."""
    factors = started(layer=torch.tensor([[0.6], [0.8]]))
    moments, asked = moments_of(layer=torch.diag(torch.tensor([0.0, 1.0])))
    penalty = rol(factors, moments, weight=0.5, rank=1, number=7, seed=3)
    assert float(penalty(factors)) == pytest.approx(0.32)
    assert asked == [{"of": "retain", "side": "outputs", "by": "text", "number": 7, "seed": 3}]
    assert float(penalty(started(layer=torch.tensor([[2.0], [0.0]])))) == 0  # orthogonal to Q
    assert float(penalty(started(layer=torch.tensor([[0.0], [3.0]])))) == pytest.approx(4.5)


def test_called_without_knobs_it_is_the_yamls():
    assert_defaults_are_the_yamls(conf_dir() / "regulariser" / "rol.yaml")


def test_layers_add_up():
    ones = {
        "one": torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
        "two": torch.tensor([[0.0], [3.0], [0.0]]),
    }
    moments, _ = moments_of(
        one=torch.diag(torch.tensor([2.0, 1.0])), two=torch.diag(torch.tensor([1.0, 5.0, 2.0]))
    )
    factors = started(**ones)
    penalty = rol(factors, moments, weight=1.0, rank=1)
    assert float(penalty(factors)) == pytest.approx(1 + 4 + 9)


def test_its_gradient_is_twice_the_projection():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64).float()
    b = torch.randn(12, 4, generator=generator, requires_grad=True)
    moments, _ = moments_of(layer=x.T @ x / 40)
    penalty = rol(started(layer=b), moments, weight=0.3, rank=5)
    penalty(started(layer=b)).backward()
    _, _, vh = torch.linalg.svd(x)  # leading eigenvectors of x^T x, by another way
    q = vh[:5].T
    torch.testing.assert_close(b.grad, 0.6 * q @ q.T @ b.detach(), rtol=1e-4, atol=1e-5)


def test_directions_there_are_too_few_of_are_refused():
    records = SimpleNamespace(retain=[None] * 20)
    widths = {"wide": 100, "narrow": 16}
    assert problems(records=records, widths=widths, rank=15, number=256) == []
    (line,) = problems(records=records, widths=widths, rank=16, number=256)
    assert line.startswith("regulariser.rank=16: narrow has 16 outputs")
    few, narrow = problems(records=records, widths=widths, rank=21, number=256)
    assert few.startswith("regulariser.rank=21: 20 retain examples span no more than 20 directions")
    assert narrow.startswith("regulariser.rank=21: narrow")
    (line,) = problems(records=records, widths=widths, rank=9, number=8)
    assert "8 retain examples" in line
