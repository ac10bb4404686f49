"""Extraction's formulas by hand, and against decoding every prefix."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loku_exp.evaluation.tdec.metrics import (
    Greedy,
    continuations,
    exact,
    extraction_bound,
    extraction_likelihood,
    extraction_strength,
    hits,
    memorisation_accuracy,
    wanted,
)

TEXT = (1, 2, 3, 4, 5, 6)
# after 1: 2 (right), after 1 2: 9 (wrong), then right, right, wrong
GUESSES = [2, 9, 4, 5, 7]


def test_memorisation_accuracy_by_hand():
    assert hits(TEXT, GUESSES) == [True, False, True, True, False]
    assert memorisation_accuracy(TEXT, GUESSES) == 3 / 5
    assert memorisation_accuracy(TEXT, TEXT[1:]) == 1
    assert memorisation_accuracy(TEXT, [0] * 5) == 0
    with pytest.raises(ValueError, match="zip"):
        memorisation_accuracy(TEXT, GUESSES[:-1])


@pytest.mark.parametrize(
    ("wrong", "strength"),
    [((), 5 / 6), ((1,), 4 / 6), ((2,), 3 / 6), ((5,), 0.0), ((1, 3), 2 / 6)],
)
def test_extraction_strength_by_hand(wrong, strength):
    """Six tokens; the guesses of the places named are wrong, and everything up to them must be given."""
    ids = [10, 11, 12, 13, 14, 15]
    guesses = [99 if place in wrong else token for place, token in enumerate(ids)][1:]
    assert extraction_strength(ids, guesses) == pytest.approx(strength)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=12), st.data())
def test_extraction_strength_equals_trying_every_beginning(ids, data):
    guesses = data.draw(st.lists(st.integers(0, 2), min_size=len(ids) - 1, max_size=len(ids) - 1))
    tried = [k for k in range(1, len(ids) + 1) if guesses[k - 1 :] == ids[k:]]
    assert extraction_strength(ids, guesses) == pytest.approx(1 - min(tried) / len(ids))


def test_loss_by_hand():
    assert Greedy([-1.0, -2.0, -6.0], [0, 0, 0], []).loss == 3


@pytest.mark.parametrize("suffix", [1, 2, 3, 4, 5])
def test_exact_by_hand(suffix):
    assert not exact(TEXT, GUESSES, suffix)
    right_at_the_end = [0, 0, 4, 5, 6]
    assert exact(TEXT, right_at_the_end, suffix) is (suffix <= 3)
    assert exact(TEXT, TEXT[1:], suffix)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [2, 5]),
        (2, [2, 5]),  # prefixes up to 4 are scored; the fourth goes on into the miss at 5
        (3, [2, 5]),
        (4, [2]),  # the second is the last scored one, and it is decoded itself
        (5, [2]),  # prefix 1 follows the text into the miss at 2
        (6, []),
        (7, []),
    ],
)
def test_what_must_be_decoded_by_hand(n, expected):
    assert wanted(TEXT, GUESSES, n) == expected


@pytest.mark.parametrize(("shown", "expected"), [(1, [2]), (2, [2]), (3, [2, 5]), (5, [2, 5])])
def test_a_prefix_that_is_shown_needs_the_first_miss_from_it_on(shown, expected):
    assert wanted(TEXT, GUESSES, 5, shown) == expected


def test_nothing_is_decoded_of_a_memorised_text():
    assert wanted(TEXT, TEXT[1:], 1) == []


def test_of_misses_beyond_the_scored_prefixes_only_the_first_counts():
    assert wanted(TEXT, [2, 3, 4, 9, 9], 3) == [4]
    assert wanted(TEXT, [2, 3, 9, 9, 9], 3) == [3]
    assert wanted(TEXT, [9, 3, 4, 5, 9], 3) == [1, 5]


DECODED = [[2, 9, 8, 4, 5], [5, 7]]


def test_continuations_by_hand():
    greedy = Greedy([], GUESSES, DECODED)
    assert continuations(TEXT, greedy) == {
        1: (2, 9, 8, 4, 5),
        2: (9, 8, 4, 5),
        3: (4, 5, 7),
        4: (5, 7),
        5: (7,),
    }
    unknown = continuations(TEXT, Greedy([], GUESSES, [[5, 7]]))
    assert unknown == {3: (4, 5, 7), 4: (5, 7), 5: (7,)}
    assert continuations(TEXT, Greedy([], list(TEXT[1:]), [])) == {t: TEXT[t:] for t in range(1, 6)}


def test_continuations_end_at_end_of_text_by_hand():
    greedy = Greedy([], GUESSES, DECODED)
    assert continuations(TEXT, greedy, 8)[1] == (2, 9, 8, 8, 8)
    assert continuations(TEXT, greedy, 8)[2] == (9, 8, 8, 8)
    assert continuations(TEXT, greedy, 4)[3] == (4, 4, 4)
    assert continuations(TEXT, greedy, 7)[3] == (4, 5, 7)
    assert continuations(TEXT, greedy, 77) == continuations(TEXT, greedy)


def test_extraction_likelihood_by_hand():
    known = continuations(TEXT, Greedy([], GUESSES, DECODED))
    # 1-grams: {2,4,5} of 5, {4,5} of 4, {4,5} of 3, {5} of 2, none of 1
    assert extraction_likelihood(TEXT, known, 1) == pytest.approx(
        (3 / 5 + 2 / 4 + 2 / 3 + 1 / 2 + 0) / 5
    )
    # 2-grams: (4,5) of 4, (4,5) of 3, (4,5) of 2, none of 1
    assert extraction_likelihood(TEXT, known, 2) == pytest.approx((1 / 4 + 1 / 3 + 1 / 2 + 0) / 4)
    assert extraction_likelihood(TEXT, known, 3) == 0


def test_a_repeated_ngram_counts_as_often_as_it_is_said():
    known = {1: (5, 5, 5), 2: (5, 5), 3: (5,)}
    assert extraction_likelihood((1, 5, 6, 7), known, 1) == pytest.approx((3 / 3 + 0 + 0) / 3)


def test_the_bound_by_hand():
    # prefix 1: run of 1; prefix 3: run of 2; prefix 4: run of 1
    assert extraction_bound(TEXT, GUESSES, 1) == pytest.approx((1 / 5 + 0 + 2 / 3 + 1 / 2) / 5)
    assert extraction_bound(TEXT, GUESSES, 2) == pytest.approx((1 / 2) / 4)
    assert extraction_bound(TEXT, TEXT[1:], 3) == 1


# -- any deterministic model ---------------------------------------------------------------------


def model_of_prefixes(ids, seed, alphabet, memorised):
    """A model as a function of the whole prefix, right on the text with some probability."""

    def guess(prefix):
        rng = random.Random(f"{seed} {prefix}")
        if prefix == ids[: len(prefix)] and rng.random() < memorised:
            return ids[len(prefix)]
        return rng.randrange(alphabet)

    return guess


def decode(guess, prefix, total):
    prefix = tuple(prefix)
    while len(prefix) < total:
        prefix += (guess(prefix),)
    return prefix


def likelihood_by_loops(ids, guess, n, end_of_text=None):
    """EL_n by its definition: decode all prefixes, count n-grams."""
    total = len(ids)
    overlaps = []
    for t in range(1, total - n + 1):
        said, rest = list(decode(guess, ids[:t], total)[t:]), ids[t:]
        if end_of_text in said:
            end = said.index(end_of_text)
            said[end:] = [end_of_text] * (len(said) - end)
        found = 0
        for i in range(len(said) - n + 1):
            for j in range(len(rest) - n + 1):
                if tuple(said[i : i + n]) == rest[j : j + n]:
                    found += 1
                    break
        overlaps.append(found / (len(rest) - n + 1))
    return sum(overlaps) / len(overlaps)


def greedy_of(ids, guess, n):
    argmax = [guess(ids[:t]) for t in range(1, len(ids))]
    prefixes = wanted(ids, argmax, n)
    decoded = [[t, *decode(guess, ids[:t], len(ids))[t:]] for t in prefixes]
    return Greedy([], argmax, decoded)


cases = st.tuples(
    st.lists(st.integers(0, 3), min_size=2, max_size=14).map(tuple),
    st.integers(0, 2**32),
    st.sampled_from([2, 3, 5]),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
)
tables = st.tuples(
    st.lists(st.integers(0, 3), min_size=2, max_size=14).map(tuple),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
)


def check(ids, guess, n, end_of_text):
    greedy = greedy_of(ids, guess, n)
    misses = [t for t, right in enumerate(hits(ids, greedy.argmax), 1) if not right]
    prefixes = [t for t, *_ in greedy.decoded]
    assert prefixes == sorted(set(prefixes))
    assert set(prefixes) <= set(misses)
    assert sum(t > len(ids) - n for t in prefixes) <= 1
    plain = continuations(ids, greedy)
    scored = range(1, len(ids) - n + 1)
    assert set(scored) <= set(plain)
    for t, said in plain.items():
        assert said == decode(guess, ids[:t], len(ids))[t:]
    if len(ids) <= n:
        assert prefixes == []
        return
    likelihood = extraction_likelihood(ids, plain, n)
    assert likelihood == pytest.approx(likelihood_by_loops(ids, guess, n), abs=1e-12)
    assert 0 <= extraction_bound(ids, greedy.argmax, n) <= likelihood + 1e-12 <= 1 + 2e-12
    known = continuations(ids, greedy, end_of_text)
    assert extraction_likelihood(ids, known, n) == pytest.approx(
        likelihood_by_loops(ids, guess, n, end_of_text), abs=1e-12
    )
    if memorisation_accuracy(ids, greedy.argmax) == 1:
        assert prefixes == []
        assert likelihood == extraction_bound(ids, greedy.argmax, n) == 1
    if not prefixes:  # all scored prefixes follow the text to its end
        assert all(plain[t] == ids[t:] for t in scored)


@given(cases, st.integers(1, 5), st.integers(0, 4))
def test_equal_to_decoding_every_prefix(case, n, end_of_text):
    ids, seed, alphabet, memorised = case
    check(ids, model_of_prefixes(ids, seed, alphabet, memorised), n, end_of_text)


@given(tables, st.integers(1, 5), st.integers(0, 4))
def test_equal_for_models_of_the_last_token(case, n, end_of_text):
    ids, table = case
    check(ids, lambda prefix: table[prefix[-1]], n, end_of_text)


@given(cases, st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_what_the_smallest_ngram_needs_is_enough_for_all(case, sizes):
    ids, seed, alphabet, memorised = case
    guess = model_of_prefixes(ids, seed, alphabet, memorised)
    known = continuations(ids, greedy_of(ids, guess, min(sizes)))
    for n in sizes:
        if len(ids) > n:
            assert extraction_likelihood(ids, known, n) == pytest.approx(
                likelihood_by_loops(ids, guess, n), abs=1e-12
            )


@given(cases, st.integers(1, 13))
def test_exact_is_decoding_the_rest(case, suffix):
    ids, seed, alphabet, memorised = case
    guess = model_of_prefixes(ids, seed, alphabet, memorised)
    argmax = [guess(ids[:t]) for t in range(1, len(ids))]
    if suffix < len(ids):
        said = decode(guess, ids[:-suffix], len(ids))
        assert exact(ids, argmax, suffix) == (said == ids)
