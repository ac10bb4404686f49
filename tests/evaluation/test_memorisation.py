"""Exact memorisation and extraction strength: by hand, and against a search over beginnings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loku_exp.evaluation.memorisation import answer_strength, exact_memorisation


@pytest.mark.parametrize(
    ("greedy", "share", "strength"),
    [
        ([False, False, True, True], 0.5, 0.5),
        ([True, False, True, False], 0.5, 0.0),
        ([True] * 4, 1.0, 1.0),
        ([False] * 4, 0.0, 0.0),  # OpenUnlearning: .25
        ([True, False, True], 2 / 3, 1 / 3),
    ],
)
def test_by_hand(greedy, share, strength):
    assert exact_memorisation(greedy) == pytest.approx(share)
    assert answer_strength(greedy) == pytest.approx(strength)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_strength_is_what_a_search_over_beginnings_finds(greedy):
    total = len(greedy)
    shortest = min(k for k in range(total + 1) if all(greedy[k:]))
    assert answer_strength(greedy) == pytest.approx(1 - shortest / total)
