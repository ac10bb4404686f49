"""The controls of FILA have its size or its arithmetic, and not its information."""

import pytest
import torch

from loku_exp.config.compose import compose_config
from loku_exp.config.groups import options_of
from loku_exp.inits.controls import fila_constant_retain, fila_shuffled, random_subspace
from loku_exp.inits.fila import fila
from tests.inits.test_fila import SCALING, importance_of, layer

D = torch.linspace(0.1, 3, 24)


def part(factors):
    return SCALING * factors.b @ factors.a


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_random_subspace_has_filas_norm_and_holds_the_weights_projection(rank):
    matrix = layer(rank=rank)
    (ours,) = random_subspace([matrix], importance_of(D))
    (theirs,) = fila([matrix], importance_of(D))
    x = part(ours)
    assert x.norm() == pytest.approx(float(part(theirs).norm()), rel=1e-5)
    assert torch.linalg.matrix_rank(x) == rank
    # a multiple of the projection of W onto the columns of X
    basis = torch.linalg.qr(x)[0] if rank == 24 else torch.linalg.svd(x)[0][:, :rank]
    projected = basis @ basis.T @ matrix.weight
    ratio = float(x.norm() / projected.norm())
    torch.testing.assert_close(x, ratio * projected, rtol=1e-3, atol=1e-4)
    assert (ours.a.shape, ours.b.shape) == ((rank, 40), (24, rank))


def test_a_random_subspace_depends_on_the_layers_seed_and_on_nothing_else():
    one, again = (next(random_subspace([layer(seed=3)], importance_of(D))) for _ in range(2))
    assert torch.equal(one.a, again.a)
    # another importance changes the size alone
    other = next(random_subspace([layer(seed=3)], importance_of(D.flip(0))))
    cosine = (part(one) * part(other)).sum() / part(one).norm() / part(other).norm()
    assert float(cosine) == pytest.approx(1, abs=1e-5)


def test_shuffled_is_fila_by_the_row_weights_of_other_rows():
    matrix = layer(seed=5)
    (ours,) = fila_shuffled([matrix], importance_of(D))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5))
    (theirs,) = fila([matrix], importance_of(D[order]))
    assert torch.equal(ours.a, theirs.a)
    assert torch.equal(ours.b, theirs.b)
    assert not torch.equal(order, torch.arange(24))


def test_a_constant_retain_fisher_is_a_huge_relative_epsilon():
    """sqrt(sum F_f / (F_r + e)) with e far above F_r is the forget Fisher's root, times a constant."""
    asked: list[dict] = []
    (ours,) = fila_constant_retain([layer()], importance_of(D, asked))
    (knobs,) = asked
    assert (knobs["epsilon"], knobs["relative"]) == (1e6, True)
    (theirs,) = fila([layer()], importance_of(D))
    assert torch.equal(ours.a, theirs.a)
    forget, retain = torch.rand(24, 40) + 0.1, torch.rand(24, 40) + 0.1
    weights = (forget / (retain + 1e6 * retain.mean())).sum(1).sqrt()
    alone = forget.sum(1).sqrt()
    torch.testing.assert_close(weights / weights.norm(), alone / alone.norm(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", sorted(set(options_of("init", None)) - {"none"}))
def test_every_init_is_shown_under_its_own_name(name):
    """Tables, reports and claims know an init by its function; a control is never taken for FILA."""
    assert compose_config([f"init={name}"]).init.name == name
