"""Weighted gradient ascent: by hand, and beside a loop over tokens."""

import pytest

from loku_exp.losses.builtin import gd
from loku_exp.losses.weighted import satimp, wga
from tests.losses.oracle import ce, check, flat, mean, nll, of_probabilities, said, tokens

RETAIN = said([[0.0, 0.0]], [0])


def ascent(model, weight):
    """The ascent on the forget set, each token weighted by what its probability is now."""
    return -mean(
        weight(z.softmax(-1)[label].item()) * nll(z, label)
        for z, label in flat(tokens(model, "forget"))
    )


def test_values_by_hand():
    rows = said(of_probabilities(0.5, 0.1), [0, 0])
    # -(.5 * .69315 + .1 * 2.30259) / 2; -(.5^5 * .5 * .69315 + .1^5 * .9 * 2.30259) / 2
    assert wga(rows, RETAIN).forget.item() == pytest.approx(-0.28842, rel=1e-4)
    assert satimp(rows, RETAIN).forget.item() == pytest.approx(-0.0054256, rel=1e-4)
    assert satimp(rows, RETAIN).retain_weight == 0.1


def test_weights_carry_no_gradient():
    """Of one token: p^beta (softmax - onehot), minus the sign."""
    rows = said(of_probabilities(0.4), [0])
    wga(rows, RETAIN, beta=2.0, retain_weight=0.0).total.backward()
    slope = rows._model.logits.grad[0, 0]
    assert slope.tolist() == pytest.approx([0.16 * 0.6, -0.16 * 0.6])


def test_without_weights_it_is_gradient_difference():
    rows = said(of_probabilities(0.5, 0.1), [0, 0])
    assert wga(rows, RETAIN, beta=0.0).total.item() == pytest.approx(gd(rows, RETAIN).total.item())


def test_wga_equals_the_loop():
    def slow(model, target):
        return 2 * ascent(model, lambda p: p**0.5) + ce(model)

    check(wga, slow, beta=0.5, forget_weight=2.0)


def test_satimp_equals_the_loop():
    def slow(model, target):
        return ascent(model, lambda p: p**0.5 * (1 - p) ** 2) + 0.1 * ce(model)

    check(satimp, slow, beta1=0.5, beta2=2.0)
