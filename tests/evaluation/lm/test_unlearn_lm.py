"""Scores and generations do not depend on batching, and equal requests are computed once."""

import json

import pytest
import torch
from lm_eval.api.instance import Instance
from loku_exp.evaluation.lm.responses import Replay, Responses
from peft import LoraConfig, get_peft_model

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.tofu.suite import suite
from loku_exp.models.tokenizer import train_tokenizer
from tests.helpers import random_sequence, tiny_model, tiny_records

TOKENIZER = train_tokenizer(["a b c d e f g"], 300)
SEQUENCES = [random_sequence(3 + i % 17, 1 + i % 2, 61, i) for i in range(40)]


def language_model(batch_tokens=64, responses=None, stop_at_eos=False):
    return UnlearnLM(
        tiny_model(),
        TOKENIZER,
        batch_tokens=batch_tokens,
        max_length=64,
        stop_at_eos=stop_at_eos,
        responses=responses,
    )


def instances(kind, arguments):
    return [Instance(kind, {}, argument, 0, (None, None, 1)) for argument in arguments]


def scoring(sequences):
    return instances("token_scores", [("text", sequence) for sequence in sequences])


def one_by_one(sequence: Sequence):
    """Log-probabilities by a plain forward of one unpadded text, in float64."""
    model = tiny_model(dtype=torch.float64)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([sequence.ids])).logits[0]
    places = [t for t in range(1, len(sequence.ids)) if sequence.labels[t] != IGNORED]
    logprobs = [logits[t - 1].log_softmax(-1)[sequence.ids[t]].item() for t in places]
    return logprobs, [int(logits[t - 1].argmax()) == sequence.ids[t] for t in places]


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_token_scores_equal_one_text_at_a_time(batch_tokens):
    scores = language_model(batch_tokens).token_scores(scoring(SEQUENCES))
    for sequence, score in zip(SEQUENCES, scores, strict=True):
        logprobs, greedy = one_by_one(sequence)
        assert score.logprobs == pytest.approx(logprobs, abs=1e-5)
        assert score.greedy == greedy
        assert score.loss == pytest.approx(-sum(logprobs) / len(logprobs), abs=1e-5)


PROMPTS = [("prompt", SEQUENCES[i].ids, 30 + i % 3) for i in range(20)]


def greedy_by_loop(prompt, total):
    """Greedy continuation without cache, padding or batch."""
    model, ids = tiny_model(), list(prompt)
    with torch.no_grad():
        while len(ids) < total:
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
def test_generations_equal_a_loop(batch_tokens):
    answers = language_model(batch_tokens).generate_ids(instances("generate_ids", PROMPTS))
    for (_, prompt, total), answer in zip(PROMPTS, answers, strict=True):
        assert answer == greedy_by_loop(prompt, total)


def test_generation_stops_at_end_of_text_only_if_asked_to():
    going_on = language_model(stop_at_eos=False).generate_ids(instances("generate_ids", PROMPTS))
    lm = language_model(stop_at_eos=True)
    eos = next(token for answer in going_on for token in answer[3:])
    lm.tokenizer.eos_token = lm.tokenizer.convert_ids_to_tokens(eos)
    stopped = lm.generate_ids(instances("generate_ids", PROMPTS))
    TOKENIZER.eos_token = "<|endoftext|>"
    for whole, cut in zip(going_on, stopped, strict=True):
        assert cut == (whole[: whole.index(eos)] if eos in whole else whole)
    assert any(len(cut) < len(whole) for whole, cut in zip(going_on, stopped, strict=True))


@pytest.mark.parametrize("adapted", [False, True])
def test_settings_that_came_with_a_model_are_not_followed(adapted):
    asked = instances("generate_ids", PROMPTS)
    lm = language_model(stop_at_eos=False)
    going_on = lm.generate_ids(asked)
    lm = language_model(stop_at_eos=False)
    own = lm.model.generation_config
    own.eos_token_id = [going_on[0][3], going_on[1][3]]
    own.repetition_penalty = 3.0
    if adapted:
        lm._model = get_peft_model(lm.model, LoraConfig(target_modules=["q_proj"]))
    assert lm.generate_ids(asked) == going_on
    assert lm.model.generation_config is own


def test_a_prompt_that_fills_the_budget_is_answered_with_nothing():
    ids = SEQUENCES[-1].ids
    asked = [("a", ids, len(ids) - 2), ("b", ids[:3], 8), ("c", ids, len(ids))]
    for batch_tokens in (1, 10_000):
        answers = language_model(batch_tokens).generate_ids(instances("generate_ids", asked))
        assert [len(answer) for answer in answers] == [0, 5, 0]


def test_equal_requests_are_forwarded_once(monkeypatch):
    lm, rows = language_model(), []
    forward = lm.model.forward

    def counting(*args, **kwargs):
        for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True):
            rows.append(tuple(ids[mask.bool()].tolist()))
        return forward(*args, **kwargs)

    monkeypatch.setattr(lm.model, "forward", counting)
    scores = lm.token_scores(scoring([*SEQUENCES, *SEQUENCES[:5]]))
    assert len(rows) == len(set(rows)) == len(SEQUENCES)
    assert scores[: len(SEQUENCES)][0] == scores[len(SEQUENCES)]
    lm.token_scores(scoring(SEQUENCES))
    assert len(rows) == len(SEQUENCES)


class Numbers:
    """A tokenizer whose tokens are numbers."""

    def decode(self, ids, skip_special_tokens):
        return " ".join(map(str, ids))


def tiny_suite(rows="all"):
    knobs = {"rows": rows, "truth_ratio": "geometric", "max_tokens": 24}
    return suite(tiny_records(), Numbers(), **knobs)


def test_replay_gives_the_same_evaluation(tmp_path):
    responses = Responses(tmp_path / "responses.json")
    first = evaluate(language_model(responses=responses), tiny_suite().tasks(None))
    responses.save()
    again = evaluate(Replay(Responses(tmp_path / "responses.json")), tiny_suite().tasks(None))
    assert again == first
    assert json.loads((tmp_path / "responses.json").read_text())
    with pytest.raises(KeyError, match="were never answered"):
        evaluate(Replay(Responses()), tiny_suite().tasks(None))


@pytest.mark.parametrize("batch_tokens", [1, 7 * 24, 100_000])
def test_metrics_do_not_depend_on_the_batch(batch_tokens):
    expected = evaluate(language_model(64), tiny_suite().tasks(None))
    actual = evaluate(language_model(batch_tokens), tiny_suite().tasks(None))
    assert actual.metrics == pytest.approx(expected.metrics, rel=1e-4, abs=1e-6)
    for one, two in zip(expected.examples, actual.examples, strict=True):
        assert one["generation"] == two["generation"]
