"""The retain term: cross-entropy, or the divergence from the target, for every loss alike."""

import math

import pytest
import torch

from loku_exp.losses.builtin import gd, ihl
from loku_exp.losses.retain import with_retain
from loku_exp.losses.scores import Scores
from loku_exp.methods.adapter import target_function
from tests.losses.oracle import BATCHES, ce, check, flat, kl, mean, moved, said, tokens


def test_divergence_by_hand():
    # target 1/2, 1/2; model 3/4, 1/4: KL = 1/2 log(2/3) + 1/2 log 2
    rows = said([[math.log(3), 0.0]], [0], target=[[0.0, 0.0]])
    terms = with_retain(torch.zeros(()), rows, "kl", 2.0)
    assert terms.retain.item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2))
    assert terms.total.item() == pytest.approx(2 * terms.retain.item())
    same = with_retain(torch.zeros(()), said([[2.0, 1, 0]], [0]), "kl", 1.0)
    assert same.retain.item() == pytest.approx(0, abs=1e-7)


def test_gradient_difference_with_divergence_equals_the_loop():
    def slow(model, target):
        return -ce(model, "forget") + 0.5 * kl(model, target)

    check(gd, slow, retain_term="kl", retain_weight=0.5)


def test_inverted_hinge_with_divergence_equals_the_loop():
    def slow(model, target):
        said = [(z.softmax(-1), label) for z, label in flat(tokens(model, "forget"))]
        hinge = [1 + p[y] - torch.cat([p[:y], p[y + 1 :]]).max() for p, y in said]
        return mean(hinge) + kl(model, target)

    check(ihl, slow, retain_term="kl")


def test_with_weight_zero_the_retain_rows_are_not_scored():
    model, as_target = moved(frozen_head=True)
    retain = Scores(model, BATCHES["retain"], as_target=as_target)
    model.register_forward_hook(pytest.fail)
    for term in ("ce", "kl"):
        assert with_retain(torch.ones(()), retain, term, 0.0).retain is None


def test_divergence_under_autocast_is_0_before_training():
    model, _ = moved(frozen_head=True)
    with torch.autocast("cpu", torch.bfloat16):
        rows = Scores(model, BATCHES["retain"], as_target=target_function(model), chunk_rows=2)
        terms = with_retain(torch.zeros(()), rows, "kl", 1.0)
    assert terms.retain.item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("frozen_head", [True, False])
def test_no_more_logits_are_held_than_a_chunk(frozen_head):
    model, as_target = moved(frozen_head)
    rows = Scores(model, BATCHES["retain"], as_target=as_target, chunk_rows=2)
    seen = []

    def term(logits, labels, target_logits):
        seen.append((logits.shape, target_logits.shape, len(labels), target_logits.requires_grad))
        return logits.sum(-1)

    rows.mean_of(rows.target_term(term)).backward()
    assert {count for _, _, count, _ in seen} <= {1, 2}
    assert all(shape == of_target == (count, 61) for shape, of_target, count, _ in seen)
    assert not any(needs for *_, needs in seen)
