"""What an init of a user's own gives is looked at before it is put on a model."""

import pytest
import torch

from loku_exp.errors import UserError
from loku_exp.inits.interface import Factors, Layer
from loku_exp.methods.starting import initial_factors
from loku_exp.runtime.chosen import Chosen

LAYERS = [Layer("one", torch.ones(6, 4), 2, 1.0, 0)]


def given_by(made):
    class Fixed(Chosen):
        def __call__(self, **_):
            return made

    return initial_factors(
        Fixed("mine", "loku_exp.inits.vanilla.vanilla", ("layers",)), LAYERS, {}, {}
    )


def factors(a=(2, 4), b=(6, 2), value=0.0, name="one"):
    return [Factors(name, torch.full(a, value), torch.full(b, value))]


def test_factors_of_every_layer_are_taken():
    assert list(given_by(factors())[0]) == ["one"]


def test_factors_of_half_precision_become_what_the_adapter_holds():
    (half,) = factors(value=0.1)
    half = Factors("one", half.a.bfloat16(), half.b.half())
    found = given_by([half])[0]["one"]
    assert found.a.dtype == found.b.dtype == torch.float32
    assert torch.equal(found.a, half.a.float())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "returned None; it must return"),
        (["one"], "returned 'one'; it must return Factors"),
        ([], "gave no factors of one"),
        (factors() + factors(name="two"), "gave factors of two, no layer it was given"),
        (factors(a=(4, 2)), r"have the shapes \(4, 2\) and \(6, 2\); they must have \(2, 4\) and"),
        (factors(value=float("nan")), "factors of one are not finite"),
    ],
)
def test_what_an_init_must_give(made, said):
    with pytest.raises(UserError, match=said):
        given_by(made)
