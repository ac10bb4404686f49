"""What an attack brings back: by hand, and what is left out."""

import pytest

from loku_exp.attacks.gains import excess, gains, reteach, words_of_gains
from loku_exp.evaluation.catalogue import completed
from loku_exp.evaluation.tofu.judge import CATALOGUE

PLAIN = {"target": 0.9, "unlearned": 0.1, "reference": 0.15}
ATTACKED = {"target+a": 0.92, "unlearned+a": 0.3, "reference+a": 0.2}


def models(**changes):
    values = PLAIN | ATTACKED | changes
    return {name: {"forget_prob": value} for name, value in values.items() if value is not None}


def test_by_hand():
    assert excess(0.3, 0.2, 0.9, 0.15) == pytest.approx(0.1 / 0.75)
    assert reteach(0.02, 0.4, 0.15, 0.45) == pytest.approx(0.38 / 0.3)
    assert excess(0.2, 0.2, 0.9, 0.15) == 0
    assert excess(0.3, 0.2, 0.16, 0.15) is None
    assert reteach(0.1, 0.3, 0.15, 0.16) is None
    assert reteach(0.1, 0.05, 0.15, 0.1) is None  # it taught nothing


def test_of_every_attacked_model_but_the_reference():
    found = {name: gains(name, models(), CATALOGUE) for name in models()}
    assert found["unlearned+a"] == {
        "forget_prob_excess": pytest.approx(0.1 / 0.75),
        "forget_prob_reteach": pytest.approx(0.2 / 0.05),
    }
    assert found["target+a"]["forget_prob_excess"] == pytest.approx(0.72 / 0.75)
    assert [name for name, values in found.items() if values] == ["target+a", "unlearned+a"]


@pytest.mark.parametrize("missing", ["reference", "reference+a", "target"])
def test_without_a_control_nothing_is_said(missing):
    assert gains("unlearned+a", models(**{missing: None}), CATALOGUE) == {}


def test_a_metric_that_one_model_lacks_is_left_out():
    known = models() | {"reference+a": {"forget_rouge": 0.3}}
    assert gains("unlearned+a", known, CATALOGUE) == {}


def test_every_number_has_its_words():
    found = gains("unlearned+a", models(), CATALOGUE)
    words = completed([*CATALOGUE, *words_of_gains(CATALOGUE)], found)
    assert [metric.name for metric in words] == list(found)
    assert words[0].label == "forget set, probability: excess over the reference"
    assert {metric.part for metric in words} == {"detail"}  # nothing is judged or ranked by them
