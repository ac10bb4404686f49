"""UNDIAL, CE-U and MASC: by hand, and beside a loop over tokens."""

import math
from types import SimpleNamespace

import pytest
import torch

from loku_exp.losses.reshaped import ce_u, masc, problems, undial
from tests.losses.oracle import ce, check, flat, kl, mean, said, tokens


def towards(wanted, logits):
    """Cross-entropy to a distribution, token by token of the vocabulary."""
    return -sum(q * p.log() for q, p in zip(wanted.detach(), logits.softmax(-1), strict=True))


def without(logits, label):
    return torch.cat([logits[:label], logits[label + 1 :]])


def test_undial_by_hand():
    terms = undial(said([[2.0, 1, 0]], [0]), None)
    # softmax(-8, 1, 0) against softmax(2, 1, 0)
    assert terms.total.item() == pytest.approx(1.67643, abs=1e-5)
    assert terms.retain is None
    plain = undial(said([[2.0, 1, 0]], [0]), None, beta=0.0).total.item()
    p = torch.tensor([2.0, 1, 0]).softmax(0)
    assert plain == pytest.approx(-(p * p.log()).sum().item())  # its own entropy


def test_ce_u_by_hand():
    # softmax(1, 0) on the others: .73106, .26894
    assert ce_u(said([[2.0, 1, 0]], [0]), None, skip=0).total.item() == pytest.approx(
        1.67655, abs=1e-5
    )
    rows = said([[9.0, 0, 0], [2.0, 1, 0]], [0, 0])
    assert ce_u(rows, None).total.item() == pytest.approx(1.67655, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "reduction", "skip", "refused"),
    [
        ("ce_u", "update", 3, True),
        ("ce_u", "update", 2, False),  # the shortest row has two
        ("ce_u", "micro_batch", 3, False),
        ("masc", "update", 3, False),
    ],
)
def test_rows_shorter_than_what_is_left_out(name, reduction, skip, refused):
    rows = [SimpleNamespace(answer=SimpleNamespace(num_labels=n)) for n in (5, 2)]
    recipe = SimpleNamespace(reduction=reduction)
    found = problems(name=name, records=SimpleNamespace(forget=rows), recipe=recipe, skip=skip)
    assert bool(found) == refused


def test_a_row_that_is_skipped_whole_says_nothing():
    rows = said([[9.0, 0, 0], [2.0, 1, 0]], [0, 0])
    terms = ce_u(rows, None, skip=2)
    assert terms.total.item() == 0
    terms.total.backward()


@pytest.mark.parametrize(
    ("logits", "knobs", "expected"),
    [
        ([2.0, 1, 0], {}, 0.35776),  # m = .68674, tau = .84730
        ([3.0, 0, 0], {}, 6.83822),  # m = 2.30685
        ([0.0, 0, 0], {}, 0.0),
        ([2.0, 1, 0], {"beta": 5.0, "competitors": 2}, (4.99328 - 0.84730 + 0.25) / 0.25),
        ([2.0, 1, 0], {"competitors": 1}, (1 - 0.84730 + 0.25) / 0.25),
    ],
)
def test_masc_by_hand(logits, knobs, expected):
    found = masc(said([logits], [0]), None, forget_weight=1.0, **knobs).total.item()
    assert found == pytest.approx(expected, abs=1e-4)


def test_undial_equals_the_loop():
    def slow(model, target):
        pairs = zip(flat(tokens(model, "forget")), flat(tokens(target, "forget")), strict=True)
        values = []
        for (z, label), (z_target, _) in pairs:
            lowered = z_target.clone()
            lowered[label] -= 3
            values.append(towards(lowered.softmax(-1), z))
        return mean(values) + 0.5 * kl(model, target)

    check(undial, slow, beta=3.0, retain_term="kl", retain_weight=0.5)


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_ce_u_equals_the_loop(skip):
    def slow(model, target):
        kept = [token for row in tokens(model, "forget") for token in row[skip:]]
        values = []
        for z, label in kept:
            wanted = z.softmax(-1).clone()
            wanted[label] = 0
            values.append(towards(wanted / wanted.sum(), z))
        return mean(values) + ce(model)

    check(ce_u, slow, skip=skip, retain_weight=1.0)


def test_masc_equals_the_loop():
    tau = math.log(0.3 / 0.7)

    def slow(model, target):
        values = []
        for z, label in flat(tokens(model, "forget")):
            others = without(2 * z, label).sort(descending=True).values[:4]
            margin = 2 * z[label] - others.exp().sum().log()
            values.append(torch.clamp((margin - tau + 0.9) / 0.9, min=0))
        assert 0 < sum(value.item() > 0 for value in values) < len(values)
        return 0.05 * mean(values) + ce(model)

    check(masc, slow, competitors=4, beta=2.0, posterior=0.3, width=0.9, retain_weight=1.0)
