"""Inits by activations: their definitions in plain algebra, and the arithmetic of their papers by hand."""

from dataclasses import replace

import pytest
import torch

from loku_exp.errors import UserError
from loku_exp.inits.activations import corda, eva, problems, rila
from loku_exp.inits.interface import Layer
from tests.helpers import tiny_records
from tests.inits.test_fila import SCALING, layer


def moments_of(**by_set):
    def moments(names, *, of, **_):
        assert names == ["layer"]
        yield by_set[of]

    return moments


def positive(size, seed=0):
    x = torch.randn(3 * size, size, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / len(x)


def test_evas_a_holds_the_leading_singular_vectors_of_the_inputs_and_b_is_zero():
    matrix = layer(rank=3)
    x = torch.randn(200, 40, generator=torch.Generator().manual_seed(1)) * torch.linspace(
        3, 0.1, 40
    )
    (factors,) = eva([matrix], moments_of(forget=x.T @ x / 200))
    _, _, vh = torch.linalg.svd(x, full_matrices=False)
    cosines = (factors.a * vh[:3]).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(3), rtol=1e-3, atol=0)
    assert not factors.b.any()
    assert factors.b.shape == (24, 3)


@pytest.mark.parametrize("rank", [1, 4])
def test_corda_takes_what_acts_most_on_the_inputs(rank):
    matrix, c = layer(rank=rank), 9 * positive(40)  # whose mean is not 1
    (factors,) = corda([matrix], moments_of(forget=c), damping=0.01)
    damped = c + 0.01 * c.diagonal().mean() * torch.eye(40)
    u, s, vh = torch.linalg.svd(matrix.weight @ damped, full_matrices=False)
    expected = (u[:, :rank] * s[:rank]) @ vh[:rank] @ torch.linalg.inv(damped)
    found = SCALING * factors.b @ factors.a
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-3 * float(expected.abs().max()))


def test_corda_of_full_rank_is_the_whole_weight():
    matrix = layer(rank=24)
    (factors,) = corda([matrix], moments_of(forget=positive(40)))
    torch.testing.assert_close(SCALING * factors.b @ factors.a, matrix.weight, rtol=1e-3, atol=1e-4)


def test_a_rank_of_more_directions_than_forget_examples_is_refused_for_rila_alone():
    records = tiny_records()
    most = len(records.forget)
    fine = [("rila", most, None), ("eva", most + 1, None), ("corda", 9, 1), ("rila", 1, 1)]
    for name, rank, number in fine:
        assert problems(name=name, records=records, rank=rank, number=number) == []
    for rank, number, drawn in ((most + 1, None, most), (2, 1, 1)):
        (said,) = problems(name="rila", records=records, rank=rank, number=number)
        assert said.startswith(f"lora.rank={rank}: {drawn} forget examples span no more")


def test_rila_by_hand():
    """H_f = {(2, 0)}, H_r = {(0, 1)}, beta .7: the difference is diag(1.2, -.7), so Q = (1, 0)."""
    matrix = Layer("layer", torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 1, SCALING, 0)
    of_forget, of_retain = (
        torch.diag(torch.tensor([4.0, 0.0])),
        torch.diag(torch.tensor([0.0, 1.0])),
    )
    (factors,) = rila([matrix], moments_of(forget=of_forget, retain=of_retain), beta=0.7)
    sign = factors.b[0, 0]
    assert float(sign.abs()) == pytest.approx(1)
    torch.testing.assert_close(sign * factors.b, torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(sign * factors.a, torch.tensor([[1.0, 2.0]]))
    base = matrix.weight - SCALING * factors.b @ factors.a
    torch.testing.assert_close(base, torch.tensor([[-1.0, -2.0], [3.0, 4.0]]))


def test_rila_is_the_projection_on_the_leading_eigenvectors():
    matrix, f, r = layer(rank=4), positive(24, 1) * 5, positive(24, 2)
    (factors,) = rila([matrix], moments_of(forget=f, retain=r), beta=0.4)
    _, vectors = torch.linalg.eigh(0.6 * f.double() - 0.4 * r.double())
    q = vectors[:, -4:].float()
    torch.testing.assert_close(factors.b @ factors.a, q @ q.T @ matrix.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(factors.b.T @ factors.b, torch.eye(4), rtol=1e-4, atol=1e-5)


def test_rila_refuses_directions_that_say_nothing():
    few = torch.zeros(24, 24)
    few[0, 0] = few[1, 1] = 1.0
    with pytest.raises(UserError, match=r"stands out in 2 directions only; which"):
        list(rila([layer(rank=4)], moments_of(forget=few, retain=torch.eye(24) / 10)))


def test_rila_does_not_take_rounding_for_a_direction():
    """Moments of 8 texts each fill 8 directions and 8; of the other 48 rounding makes some positive."""
    draws = (torch.randn(8, 64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    f, r = (x.double() for x in draws)
    moments = moments_of(forget=f.T @ f, retain=r.T @ r / 9)
    matrix = Layer("layer", torch.eye(64), 8, SCALING, 0)
    (factors,) = rila([matrix], moments)
    assert factors.b.shape == (64, 8)
    with pytest.raises(UserError, match="stands out in 8 directions only"):
        list(rila([replace(matrix, rank=16)], moments))


def test_rila_refuses_one_of_two_directions_in_which_the_sets_are_alike():
    """Eigenvalues of exactly 0 tell nothing: which vectors of their plane come first is arbitrary."""
    alike = torch.diag(torch.tensor([1.0, 0.0, 0.0]))
    matrix = Layer("layer", torch.eye(3), 2, SCALING, 0)
    with pytest.raises(UserError, match="in layer the forget set stands out in 1 directions only"):
        list(rila([matrix], moments_of(forget=alike, retain=torch.zeros(3, 3))))


def test_rila_takes_leading_directions_in_which_the_retain_set_stands_out_too_and_says_so(caplog):
    """Of the eigenvalues 1, -.1, -.3 the second is as definite as the first; released code takes it."""
    f, r = torch.diag(torch.tensor([2.0, 0.0, 0.0])), torch.diag(torch.tensor([0.0, 0.2, 0.6]))
    matrix = Layer("layer", torch.eye(3), 2, SCALING, 0)
    (factors,) = rila([matrix], moments_of(forget=f, retain=r), beta=0.5)
    torch.testing.assert_close(factors.b @ factors.a, torch.diag(torch.tensor([1.0, 1.0, 0.0])))
    assert "in 1 of 1 layers the forget set stands out in fewer directions" in caplog.text
    caplog.clear()
    list(rila([replace(matrix, rank=1)], moments_of(forget=f, retain=r), beta=0.5))
    assert not caplog.text
