"""Losses on whole answers: by hand, and beside a loop over tokens."""

import math

import pytest
import torch

from loku_exp.losses.preference import dpo, idk, npo, simnpo
from loku_exp.losses.scores import Scores
from tests.losses.oracle import (
    BATCHES,
    ce,
    check,
    kl,
    mean,
    moved,
    nll,
    of_probabilities,
    said,
    tokens,
)

RETAIN = said([[0.0, 0.0]], [0])  # its cross-entropy is log 2
AT_TARGET = 2 * math.log(2) / 0.1


def sums(model, name):
    """NLL of each row, summed over its tokens."""
    return [sum(nll(*token) for token in row) for row in tokens(model, name)]


def preferred(beta, *distances):
    """-(2/beta) log sigmoid(beta x), averaged, written out."""
    return mean(2 / beta * (1 + torch.exp(-beta * x)).log() for x in distances)


def test_npo_by_hand():
    same = npo(said([[2.0, 1, 0]], [0]), RETAIN)
    assert same.forget.item() == pytest.approx(AT_TARGET)
    assert same.retain.item() == pytest.approx(math.log(2))
    # ten nats below the target, in two tokens: 20 log(1 + exp(-1))
    far = said(of_probabilities(0.1 * math.exp(-5), 0.2 * math.exp(-5)), [0, 0],
               target=of_probabilities(0.1, 0.2))  # fmt: skip
    assert npo(far, RETAIN).forget.item() == pytest.approx(
        20 * math.log(1 + math.exp(-1)), rel=1e-4
    )


def test_simnpo_by_hand():
    sure = said([[50.0, 0.0]], [0])
    assert simnpo(sure, RETAIN).forget.item() == pytest.approx(0.125 * 0.30807, rel=1e-4)
    # NLL 1 and 2: the mean of the answer is 1.5, whatever its length
    half = said(of_probabilities(math.exp(-1), math.exp(-2)), [0, 0])
    found = simnpo(half, RETAIN, forget_weight=1.0).forget.item()
    assert found == pytest.approx(2 / 4.5 * math.log(1 + math.exp(-6.75)), rel=1e-4)
    assert simnpo(half, RETAIN, delta=1.5, forget_weight=1.0).forget.item() == pytest.approx(
        0.30807, 1e-4
    )


def test_idk_by_hand():
    refusal = said(of_probabilities(0.5, 0.25), [0, 0])
    terms = idk(None, refusal, RETAIN, retain_weight=2.0)  # the forget answers are not looked at
    assert terms.forget.item() == pytest.approx(1.5 * math.log(2))
    assert terms.total.item() == pytest.approx(3.5 * math.log(2))


def test_dpo_by_hand():
    same = said([[2.0, 1, 0]], [0])
    assert dpo(same, same, RETAIN).forget.item() == pytest.approx(AT_TARGET)
    # the refusal twice as likely as before, the answer half: beta log 4
    won = said(of_probabilities(0.4), [0], target=of_probabilities(0.2))
    lost = said(of_probabilities(0.25), [0], target=of_probabilities(0.5))
    assert dpo(lost, won, RETAIN).forget.item() == pytest.approx(20 * math.log(1 + 4**-0.1))
    assert dpo(won, lost, RETAIN).forget.item() == pytest.approx(20 * math.log(1 + 4**0.1))


def test_npo_equals_the_loop():
    def slow(model, target):
        of_model, of_target = sums(model, "forget"), sums(target, "forget")
        apart = [a - b.detach() for a, b in zip(of_model, of_target, strict=True)]
        return preferred(0.3, *apart) + 0.5 * kl(model, target)

    check(npo, slow, beta=0.3, retain_term="kl", retain_weight=0.5)


def test_simnpo_equals_the_loop():
    def slow(model, target):
        means = [mean(nll(*token) for token in row) for row in tokens(model, "forget")]
        return 0.125 * preferred(2.5, *[x - 0.2 for x in means]) + ce(model)

    check(simnpo, slow, beta=2.5, delta=0.2)


def test_idk_equals_the_loop():
    check(
        idk, lambda model, target: ce(model, "idk") + ce(model), batches=("forget", "idk", "retain")
    )


def test_dpo_equals_the_loop():
    def slow(model, target):
        won, lost, won_then, lost_then = (
            sums(m, name) for m in (model, target) for name in ("idk", "forget")
        )
        rows = zip(won, lost, won_then, lost_then, strict=True)
        gained = [(c.detach() - a) - (d.detach() - b) for a, b, c, d in rows]
        return preferred(0.2, *gained) + ce(model)

    check(dpo, slow, batches=("forget", "idk", "retain"), beta=0.2)


def test_idk_runs_no_pass_of_the_forget_answers():
    model, as_target = moved(frozen_head=True)
    scores = {name: Scores(model, batch, as_target=as_target) for name, batch in BATCHES.items()}
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    idk(**scores)
    assert len(calls) == 2
