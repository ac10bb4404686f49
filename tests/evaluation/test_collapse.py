"""When a model counts as broken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loku_exp.evaluation.collapse import collapse, is_degenerate
from loku_exp.evaluation.rouge import words_in_any_script
from tests.helpers import evaluation_of


@pytest.mark.parametrize(
    ("text", "degenerate"),
    [
        ("", True),
        ("  ", True),
        ("the " * 20, True),
        ("the " * 9, False),  # too short to say
        ("a b c d e f g h i j k", False),
        ("a b " * 5, False),  # a fifth of them differ
        ("a b " * 6, True),
        ("no no", False),
        ("我爱你" * 20, True),
        ("日本は東アジアに位置する島国であり、首都は東京である。", False),
        ("ไม่" * 12, True),
        (",,,,,,,,,,,,", True),
        ("<|endoftext|>" * 12, True),
        ("\\n):" * 12 + "\\n)", True),
        (",,,,,,,,,", False),  # too short to say
        ("x = [1, 2, 3] " + "-" * 12, False),
    ],
)
def test_degenerate_generations(text, degenerate):
    assert is_degenerate(text) == degenerate


@given(st.text(alphabet="ab é\t\n\x1c.,-1Жяß"))
def test_words_are_what_stands_between_spaces_where_a_script_has_them(text):
    assert words_in_any_script(text) == text.split()


FINE = ["a good answer to this"] * 10
RAMBLING = ["so " * 30] * 10


def model(probability, texts=FINE, name="retain_prob", of="retain"):
    rows = [{"set": of, "row": k, "generation": text} for k, text in enumerate(texts)]
    return evaluation_of({name: probability}, rows)


def test_half_of_the_retain_probability():
    assert collapse(model(0.45), model(0.9)) is None
    said = "retain probability 0.44, less than half of the target's 0.9"
    assert collapse(model(0.44), model(0.9)) == said


def test_the_probability_may_be_known_as_a_loss():
    known_by_heart = model(0.0, name="retain_loss")
    assert collapse(model(0.69, name="retain_loss"), known_by_heart) is None
    assert "0.5, less than half" in collapse(model(0.7, name="retain_loss"), known_by_heart)


def test_a_quarter_more_of_broken_generations():
    assert collapse(model(0.8, RAMBLING[:2] + FINE[:6]), model(0.8)) is None
    assert "38% of its retain generations" in collapse(
        model(0.8, RAMBLING[:3] + FINE[:5]), model(0.8)
    )
    assert "repeat" in collapse(model(0.8, [""] * 4 + FINE), model(0.8))


def test_what_the_target_does_too_is_no_sign():
    assert collapse(model(0.8, RAMBLING), model(0.8, RAMBLING)) is None


def test_only_the_retain_set_counts():
    assert collapse(model(0.8, RAMBLING, of="forget"), model(0.8, [])) is None


def test_what_was_not_measured_cannot_be_said():
    assert collapse(evaluation_of({}), model(0.8)) is None
    assert collapse(model(0.1), evaluation_of({}, [{"set": "retain", "row": 1}])) is None
