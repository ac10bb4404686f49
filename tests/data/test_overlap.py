"""Shared passages are found wherever they are, and nothing else is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loku_exp.data import overlap
from loku_exp.data.overlap import WINDOW, overlaps
from loku_exp.data.text import Text
from tests.data.tdec_folder import words


def text(row, content):
    return Text(row, "g", content)


def ids(row, content, and_text=None):
    return Text(row, "g", and_text, tuple(content))


PASSAGE = words(WINDOW, 0)


@pytest.mark.parametrize("before", [0, 1, 50])
@pytest.mark.parametrize("after", [0, 1, 50])
def test_a_shared_passage_is_found_anywhere(before, after):
    ours = [text(7, words(40, 1)), text(8, f"{words(before, 2)}\n{PASSAGE}  {words(after, 3)}")]
    theirs = [text(0, words(40, 4)), text(1, f"{words(9, 5)} {PASSAGE} {words(9, 6)}")]
    assert overlaps(ours, theirs) == {8: 1}


def test_one_word_less_is_not_a_passage():
    shorter = PASSAGE.rsplit(" ", 1)[0]
    ours, theirs = text(0, f"{shorter} one {words(9, 1)}"), text(1, f"{shorter} two {words(9, 2)}")
    assert overlaps([ours], [theirs]) == {}


def test_short_texts_count_whole():
    assert overlaps([text(0, "a b c")], [text(1, "a\nb c")]) == {0: 1}
    assert overlaps([text(0, "a b c")], [text(1, "a b c d")]) == {}


def test_passages_of_ids():
    shared = list(range(WINDOW))
    ours = [ids(0, range(100, 200)), ids(1, [*shared, 999])]
    assert overlaps(ours, [ids(5, [7, *shared])]) == {1: 5}
    assert overlaps(ours, [ids(5, [7, *shared[:-1]])]) == {}


def test_what_has_nothing_in_common_shares_nothing():
    assert overlaps([ids(0, range(50))], [text(0, PASSAGE)]) == {}
    assert overlaps([text(0, PASSAGE)], [ids(0, range(50))]) == {}
    assert overlaps([text(0, PASSAGE)], []) == {}
    assert overlaps([], [text(0, PASSAGE)]) == {}


def test_ids_are_compared_with_those_that_have_them():
    """Rows of the arrays are to keep, published texts with ids are to forget, pile.csv has text only."""
    ours = [ids(0, range(50)), ids(1, range(200, 250))]
    theirs = [ids(4, range(210, 260), PASSAGE), text(5, words(40, 1))]
    assert overlaps(ours, theirs) == {1: 4}


def test_text_is_compared_with_those_that_have_it():
    """A file is to keep, rows of the arrays are to forget, and pile.csv has text only."""
    theirs = [ids(4, range(50)), text(5, PASSAGE)]
    assert overlaps([text(0, words(40, 1)), text(1, f"some {PASSAGE}")], theirs) == {1: 5}


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3))
def test_equal_to_comparing_everything_with_everything(seed, window, alphabet):
    rng = random.Random(seed)
    made = [
        [str(rng.randrange(alphabet)) for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(2, 9))
    ]  # fmt: skip
    cut = rng.randint(1, len(made) - 1)

    def passages(units):
        if len(units) < window:
            return [units]
        return [units[i : i + window] for i in range(len(units) - window + 1)]

    expected = {
        row
        for row, ours in enumerate(made[:cut])
        if any(a == b for theirs in made[cut:] for a in passages(ours) for b in passages(theirs))
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "WINDOW", window)
        texts = [text(row, " ".join(units)) for row, units in enumerate(made)]
        by_text = overlaps(texts[:cut], texts[cut:])
        numbers = [ids(row, map(int, units)) for row, units in enumerate(made)]
        by_ids = overlaps(numbers[:cut], numbers[cut:])
    assert set(by_text) == set(by_ids) == expected
    for found in (by_text, by_ids):
        for ours, theirs in found.items():
            assert cut <= theirs < len(made)
            assert any(a == b for a in passages(made[ours]) for b in passages(made[theirs]))


@pytest.mark.parametrize("length", [10, 25, WINDOW - 1])
def test_a_short_text_is_found_inside_a_longer_one_and_the_other_way_round(length):
    short, long = words(length, 1), f"{words(40, 2)} {words(length, 1)} {words(40, 3)}"
    assert overlaps([text(3, short)], [text(8, long)]) == {3: 8}
    assert overlaps([text(3, long)], [text(8, short)]) == {3: 8}


def test_each_of_several_short_texts_that_are_alike_is_found():
    short, longer = words(12, 1), f"{words(40, 2)} {words(12, 1)} {words(40, 3)}"
    ours = [text(0, short), text(1, words(12, 4)), text(2, short), text(3, words(50, 5))]
    assert overlaps(ours, [text(9, longer)]) == {0: 9, 2: 9}


def test_a_text_of_a_few_words_is_no_passage_of_others():
    short = words(9, 1)
    assert overlaps([text(3, short)], [text(8, f"{words(40, 2)} {short}")]) == {}


@pytest.mark.parametrize("script", ["\u4e00", "\u3042", "\u0e01"])
def test_a_script_without_spaces_is_compared_by_characters(script):
    passage = "".join(chr(ord(script) + i % 40) for i in range(WINDOW))
    assert overlaps([text(3, f"a{passage}b")], [text(8, f"before{passage}after")]) == {3: 8}
    assert overlaps([text(3, passage[:-1] + "x y z")], [text(8, passage[:-1] + "p q r")]) == {}
