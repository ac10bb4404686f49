"""PiSSA and OLoRA are PEFT's, and what their papers say."""

import pytest
import torch

from loku_exp.inits.fila import fila
from loku_exp.inits.spectral import olora, pissa
from loku_exp.inits.vila import vila
from tests.inits.test_fila import SCALING, importance_of, layer


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_pissa_is_the_principal_part(rank):
    matrix = layer(rank=rank)
    (factors,) = pissa([matrix])
    u, s, vh = torch.linalg.svd(matrix.weight)
    principal = (u[:, :rank] * s[:rank]) @ vh[:rank]
    torch.testing.assert_close(SCALING * factors.b @ factors.a, principal, rtol=1e-4, atol=1e-5)
    # FILA with rows of one importance takes the same part
    (even,) = fila([matrix], importance_of(torch.ones(24)), svd="exact")
    torch.testing.assert_close(SCALING * even.b @ even.a, principal, rtol=1e-4, atol=1e-5)


def test_olora_has_an_orthonormal_b_and_the_first_columns_of_the_weight():
    matrix = layer(rank=4)
    (factors,) = olora([matrix])
    torch.testing.assert_close(factors.b.T @ factors.b, torch.eye(4), rtol=1e-4, atol=1e-5)
    q, r = torch.linalg.qr(matrix.weight)
    torch.testing.assert_close(factors.b @ factors.a, q[:, :4] @ r[:4], rtol=1e-4, atol=1e-5)


def test_the_weight_they_are_given_stays_as_it_is():
    matrix = layer()
    before = matrix.weight.clone()
    assert [len(list(init([matrix]))) for init in (pissa, olora)] == [1, 1]
    assert torch.equal(matrix.weight, before)


def test_vila_is_fila_by_another_importance():
    matrix, d = layer(), torch.linspace(0.1, 3, 24)
    asked = []

    def variance(layers, **knobs):
        asked.append((layers, knobs))
        return importance_of(d)()

    (ours,) = vila([matrix], variance, std=0.1)
    (theirs,) = fila([matrix], importance_of(d))
    assert torch.equal(ours.a, theirs.a)
    assert torch.equal(ours.b, theirs.b)
    assert asked[0][0] == [matrix]
    assert (asked[0][1]["std"], asked[0][1]["group_size"]) == (0.1, 4)
