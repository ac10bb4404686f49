"""Right guesses found with a part of the vocabulary are those of the whole one."""

import copy
from functools import cache

import pytest
import torch

from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.evaluation.tdec import screening
from loku_exp.evaluation.tdec.metrics import hits
from loku_exp.evaluation.tdec.screening import WRONG, guesses
from tests.evaluation.tdec.memorising import memorise, random_text, untrained
from tests.helpers import tiny_model

LENGTHS = {0: 40, 11: 33, 2: 40, 3: 12, 4: 9, 5: 2, 6: 25}  # by seed
TEXTS = [random_text(length, seed) for seed, length in LENGTHS.items()]


@cache
def knowing(kind, state):
    model = untrained(kind)
    if state != "random":
        memorise(model, TEXTS, 0.35 if state == "half" else 1.0)
    return model


def batch_of(texts):
    return pad([Sequence(ids, ids) for ids in texts])


def plain(model, texts):
    """The slow way: all logits of one text at a time."""
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids])).logits[0, :-1].argmax(-1) for ids in texts]


@pytest.fixture
def whole_head(monkeypatch):
    """Numbers of rows that went through the whole head."""
    seen = []
    apply_term = screening.apply_term

    def counting(term, hidden, *rest):
        seen.append(len(hidden))
        return apply_term(term, hidden, *rest)

    monkeypatch.setattr(screening, "apply_term", counting)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("state", ["random", "half", "whole"])
@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "phi"])
def test_right_and_wrong_are_those_of_all_logits(kind, state, dtype, whole_head):
    model = copy.deepcopy(knowing(kind, state)).to(dtype)
    right = total = 0
    for ids, guess, argmax in zip(
        TEXTS, guesses(model, batch_of(TEXTS)), plain(model, TEXTS), strict=True
    ):
        expected = [int(a) == token for a, token in zip(argmax, ids[1:], strict=True)]
        assert hits(ids, guess) == expected
        assert all(g in (WRONG, int(a)) for g, a in zip(guess, argmax, strict=True))
        right, total = right + sum(hits(ids, guess)), total + len(guess)
    if state == "random":
        assert sum(whole_head) < 0.3 * total
    if state == "whole":
        assert right == total == sum(whole_head)
    if state == "half":
        assert 0.1 * total < right <= sum(whole_head) < total


@pytest.mark.parametrize("state", ["random", "half", "whole"])
@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "phi"])
def test_in_bf16_too_they_are_those_of_the_whole_head(kind, state, monkeypatch):
    """Of the same batch: one text alone rounds otherwise."""
    model = copy.deepcopy(knowing(kind, state)).to(torch.bfloat16)
    screened = guesses(model, batch_of(TEXTS))
    none = lambda hidden, *_: torch.zeros(len(hidden), dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr(screening, "_beaten", none)
    whole = guesses(model, batch_of(TEXTS))
    assert not any(WRONG in guess for guess in whole)
    for ids, one, other in zip(TEXTS, screened, whole, strict=True):
        assert hits(ids, one) == hits(ids, other)
    if state != "whole":
        assert sum(guess.count(WRONG) for guess in screened) > 10


def test_chunks_of_rows_change_nothing(monkeypatch):
    model = knowing("gpt_neo", "half")
    expected = guesses(model, batch_of(TEXTS))
    monkeypatch.setattr(screening, "CHUNK_ELEMENTS", 100)
    assert guesses(model, batch_of(TEXTS)) == expected


def with_head(weights):
    """A model whose logits for every position are these, whatever it is shown."""
    model = tiny_model(tied=False, bias=True)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(weights)
    return model


def test_ties_and_near_ties_are_left_to_the_whole_head(whole_head):
    logits = torch.zeros(61)
    logits[[5, 9]] = 8.0  # the first of equal ones is the guess
    logits[20] = 8.0 - 1e-6
    logits[30] = 7.0
    ids = (1, 5, 9, 20, 30)
    (found,) = guesses(with_head(logits), batch_of([ids]))
    assert found == [5, 5, 5, WRONG]
    assert whole_head == [3]
    assert hits(ids, found) == [True, False, False, False]


def test_what_beats_a_label_may_stand_outside_of_the_batch(whole_head):
    logits = torch.zeros(61)
    logits[40], logits[5], logits[6] = 9.0, 8.0, 1.0
    (found,) = guesses(with_head(logits), batch_of([(1, 5, 6)]))
    assert found == [40, WRONG]
    assert whole_head == [1]


def test_nothing_left_is_no_error(whole_head):
    logits = torch.arange(61.0)
    (found,) = guesses(with_head(logits), batch_of([(1, 2, 3, 4)]))
    assert found == [WRONG, WRONG, 60]
    (found, second) = guesses(with_head(logits), batch_of([(1, 2, 3), (60, 4, 5)]))
    assert found == [WRONG, WRONG]
    assert second == [WRONG, 60]
