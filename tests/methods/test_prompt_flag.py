"""Which prompts are near the forget set, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loku_exp.methods.prompt_flag import BUCKETS, log_odds, score, threshold_of


def odds_of(token, forget, retain):
    profile = log_odds(forget, retain, longest=1)
    return score((token,), profile, longest=1)


def test_log_odds_by_hand():
    forget, retain = [(1, 2), (1,), (1, 1)], [(2,), (3,)]
    prior = math.log(4 / 3)  # (3 + 1) / (2 + 1)
    assert odds_of(1, forget, retain) == pytest.approx(math.log(4 / 1) - prior)
    assert odds_of(2, forget, retain) == pytest.approx(math.log(2 / 2) - prior)
    assert odds_of(3, forget, retain) == pytest.approx(math.log(1 / 2) - prior)
    assert odds_of(9, forget, retain) == 0  # neither set has it


def test_a_score_is_the_mean_over_different_ngrams():
    profile = log_odds([(1, 2)], [(2, 3)], longest=2)
    grams = [score((1,), profile, 1), score((2,), profile, 1)]
    pair = score((1, 2), profile, 2) * 3 - sum(grams)
    assert score((1, 2, 1), profile, 1) == pytest.approx(np.mean(grams), rel=1e-6)
    assert pair == pytest.approx(math.log(2 / 1), rel=1e-5)  # equally many prompts: no prior
    assert score((), profile, 2) == 0


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0, 0.99))
def test_at_most_the_share_of_scores_exceeds_the_threshold(scores, share):
    threshold = threshold_of(scores, share)
    assert threshold in scores
    assert sum(value > threshold for value in scores) <= share * len(scores) + 1e-9
    smaller = [value for value in scores if value < threshold]
    if smaller:  # it is the smallest such score
        assert sum(value > max(smaller) for value in scores) > share * len(scores) - 1e-9


def test_profile_has_a_place_for_every_ngram():
    assert log_odds([(1,)], [(2,)], 3).shape == (BUCKETS,)
