"""Stock scoring with the head on continuations only equals lm-eval's own."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from loku_exp.errors import DataError
from loku_exp.evaluation.lm import inference as asking
from tests.evaluation.ability.ability_documents import (
    HUB,
    POSITIONS,
    TOKENIZER,
    inference,
    language_model,
    random_model,
    slow_score,
)
from tests.helpers import lm_of

PAIRS = [
    ("Question: " + doc["goal"] + "\nAnswer:", " " + doc[solution])
    for doc in HUB["piqa"]
    for solution in ("sol1", "sol2")
] + [("It is ", "so"), ("", "no context"), ("one", " two"), ("one", " three")]


def asked(pairs):
    return [Instance("loglikelihood", {}, pair, 0, (None, None, 1)) for pair in pairs]


def stock(model):
    return HFLM(
        pretrained=model, tokenizer=TOKENIZER, backend="causal", batch_size=3,
        max_length=POSITIONS, softmax_dtype="float32",
    )  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("batch_tokens", [1, 60, 100_000])
def test_loglikelihood_equals_the_stock_one(tied, batch_tokens):
    model = random_model(tied)
    expected = stock(model).loglikelihood(asked(PAIRS), disable_tqdm=True)
    actual = language_model(model, batch_tokens).loglikelihood(asked(PAIRS))
    assert len({round(logprob, 3) for logprob, _ in expected}) == len(PAIRS)
    for (logprob, greedy), (ours, our_greedy) in zip(expected, actual, strict=True):
        assert ours == pytest.approx(logprob, abs=1e-5, rel=1e-6)
        assert our_greedy is greedy


def test_the_greedy_continuation_is_told():
    model = random_model()
    context = TOKENIZER("Question: k71 open")["input_ids"]
    ids = list(context)
    for _ in range(4):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    other = [*ids[len(context) : -1], (ids[-1] + 1) % len(TOKENIZER)]
    requests = [(("", ""), context, ids[len(context) :]), (("", ""), context, other)]
    assert [greedy for _, greedy in inference(model)._loglikelihood_tokens(requests)] == [
        True,
        False,
    ]


@pytest.mark.parametrize("excess", [-1, 0, 1, 2, 30])
def test_long_contexts_are_cut_from_the_left_as_in_the_stock_one(excess):
    model = random_model()
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(len(TOKENIZER), (POSITIONS + excess,), generator=generator).tolist()
    requests = [(("", ""), ids[:-5], ids[-5:])]
    expected = stock(model)._loglikelihood_tokens(requests, disable_tqdm=True)
    actual = inference(model)._loglikelihood_tokens(requests)
    assert actual[0][0] == pytest.approx(expected[0][0], abs=1e-4)


def test_a_continuation_longer_than_the_context_is_refused():
    with pytest.raises(DataError, match="193 tokens exceeds the model's context of 192"):
        inference()._loglikelihood_tokens([(("", ""), [1], [2] * (POSITIONS + 1))])


def test_rolling_equals_the_stock_one():
    text = " ".join(["many words of a long text about k71"] * 40)
    assert len(TOKENIZER(text)["input_ids"]) > 2 * POSITIONS
    model = random_model()
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0, (None, None, 1))]
    expected = stock(model).loglikelihood_rolling(requests, disable_tqdm=True)
    actual = language_model(model).loglikelihood_rolling(requests)
    assert actual == pytest.approx(expected, rel=1e-6)


def test_the_head_sees_continuations_only(monkeypatch):
    rows, apply = [], asking.apply_term

    def counting(term, hidden, labels, head):
        rows.append(len(hidden))
        return apply(term, hidden, labels, head)

    monkeypatch.setattr(asking, "apply_term", counting)
    language_model().loglikelihood(asked(PAIRS[:4]))
    assert sum(rows) == sum(len(TOKENIZER(text)["input_ids"]) for _, text in PAIRS[:4])


def test_equal_requests_are_answered_from_memory(monkeypatch):
    model = inference()
    lm = lm_of(model)
    first = lm.loglikelihood(asked(PAIRS))
    monkeypatch.setattr(model, "batches", None)
    assert lm.loglikelihood(asked(PAIRS)) == first


def test_the_slow_scorer_of_these_tests_equals_the_stock_one():
    model = random_model()
    context, continuation = (TOKENIZER(text)["input_ids"] for text in PAIRS[0])
    expected = stock(model).loglikelihood(asked(PAIRS[:1]), disable_tqdm=True)[0]
    assert slow_score(model, context, continuation) == (
        pytest.approx(expected[0], abs=1e-4),
        expected[1],
    )
