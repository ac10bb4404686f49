"""Verdicts in words."""

import pytest
from loku_exp.results.verdict import cautions, collapsed, is_degenerate, verdict

TARGET = {"model_utility": 0.5, "retain_prob": 0.9}


def unlearned(**values):
    base = {"model_utility": 0.43, "retain_prob": 0.8, "forget_quality": 3e-5, "forget_shift": 0.4}
    return base | values


def test_under_forgotten():
    expected = (
        "distinguishable from retraining (p = 3e-05), under-forgotten, utility 86 % of the target's"
    )
    assert verdict(unlearned(), TARGET, collapse=None) == expected


def test_utility_of_a_model_from_scratch_is_its_retain_third():
    values = unlearned(model_utility_retain=0.3)
    words = verdict(values, TARGET | {"model_utility_retain": 0.6}, collapse=None, pretrained=False)
    assert words.endswith("retain third of utility 50 % of the target's")


def test_over_forgotten():
    assert "over-forgotten" in verdict(unlearned(forget_shift=-0.1), TARGET, collapse=None)


def test_not_distinguishable():
    words = verdict(unlearned(forget_quality=0.31), TARGET, collapse=None)
    assert words.startswith("not distinguishable from retraining (p = 0.31)")
    assert "forgotten" not in words


def test_collapse_comes_first():
    words = verdict(unlearned(forget_quality=0.9), TARGET, collapse="retain probability 0.01")
    assert words.startswith("COLLAPSED (retain probability 0.01)")


def test_without_reference_nothing_is_judged():
    values = unlearned()
    del values["forget_quality"]
    assert "cannot be judged" in verdict(values, TARGET, collapse=None)


@pytest.mark.parametrize(
    ("text", "degenerate"),
    [
        ("", True),
        ("  ", True),
        ("the " * 20, True),
        ("a b c d e f g h i j k", False),
        ("no no", False),
    ],
)
def test_degenerate_generations(text, degenerate):
    assert is_degenerate(text) == degenerate


def test_collapse_is_flagged():
    fine = ["a good answer to this"] * 10
    assert collapsed(unlearned(), TARGET, fine, fine) is None
    assert "less than half" in collapsed(unlearned(retain_prob=0.44), TARGET, fine, fine)
    assert "repeat" in collapsed(unlearned(), TARGET, ["so " * 30] * 4 + fine[:6], fine)
    rambling = ["so " * 30] * 10  # the target rambles too: no sign of collapse
    assert collapsed(unlearned(), TARGET, rambling, rambling) is None


def test_cautions():
    assert "little power" in cautions(40, {})[0]
    assert cautions(300, {}) == []
    assert "epsilon" in cautions(300, {"epsilon_dominates": True})[0]
    assert "first 5 documents" in cautions(300, {"limit": 5})[0]
