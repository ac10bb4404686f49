"""Scores and generations do not depend on batching, and equal requests are computed once."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.errors import DataError
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from tests.helpers import (
    TOKENIZER,
    inference_of,
    instances,
    lm_of,
    never,
    plain_greedy,
    plain_scores,
    random_sequence,
    tiny_model,
    tiny_suite,
)

SEQUENCES = [random_sequence(3 + i % 17, 1 + i % 2, 61, i) for i in range(40)]


def language_model(batch_tokens=64, answers=None, stop_at_eos=False):
    options = {"batch_tokens": batch_tokens, "stop_at_eos": stop_at_eos}
    return lm_of(inference_of(tiny_model(), **options), answers)


def scoring(sequences):
    return instances("token_scores", [("text", sequence) for sequence in sequences])


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_token_scores_equal_one_text_at_a_time(batch_tokens):
    scores = language_model(batch_tokens).token_scores(scoring(SEQUENCES))
    exact = tiny_model(dtype=torch.float64)
    for sequence, score in zip(SEQUENCES, scores, strict=True):
        logprobs, greedy = plain_scores(exact, sequence)
        assert score.logprobs == pytest.approx(logprobs, abs=1e-5)
        assert score.greedy == greedy
        assert score.loss == pytest.approx(-sum(logprobs) / len(logprobs), abs=1e-5)


@pytest.mark.parametrize("reads_prompts", [False, True])
def test_scores_do_not_depend_on_what_was_continued_before(reads_prompts):
    """A model that reads prompts takes a continued prefix for one; a text that is scored has none."""
    text = SEQUENCES[16].ids
    lm = UnlearnLM(Answers(), lambda: Says(), reads_prompts=reads_prompts)
    lm.greedy_suffixes(instances("greedy_suffixes", [("text", text, 0)]))
    (scores,) = lm.token_scores(instances("token_scores", [("text", Sequence(text, text))]))
    assert scores.logprobs[0] == (-2.0 if reads_prompts else -1.0)


class Says:
    """Scores a text -1 a token where its prefixes are continued, -2 where it is scored."""

    def batches(self, kind, requests, wanted):
        for index, request in enumerate(requests):
            ids = request.args[1]
            if kind == "greedy_suffixes":
                yield {index: ([-1.0] * (len(ids) - 1), list(ids[1:]), {})}
            else:
                yield {index: ([-2.0] * (len(ids.ids) - 1), [True] * (len(ids.ids) - 1))}


PROMPTS = [("prompt", SEQUENCES[i].ids, 30 + i % 3) for i in range(20)]


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
def test_generations_equal_a_loop(batch_tokens):
    answers = language_model(batch_tokens).generate_ids(instances("generate_ids", PROMPTS))
    for (_, prompt, total), answer in zip(PROMPTS, answers, strict=True):
        assert answer == plain_greedy(tiny_model(), prompt, total - len(prompt))


def test_generation_stops_at_end_of_text_only_if_asked_to():
    going_on = language_model(stop_at_eos=False).generate_ids(instances("generate_ids", PROMPTS))
    lm = language_model(stop_at_eos=True)
    eos = next(token for answer in going_on for token in answer[3:])
    TOKENIZER.eos_token = TOKENIZER.convert_ids_to_tokens(eos)
    try:
        stopped = lm.generate_ids(instances("generate_ids", PROMPTS))
    finally:
        TOKENIZER.eos_token = "<|endoftext|>"
    for whole, cut in zip(going_on, stopped, strict=True):
        assert cut == (whole[: whole.index(eos)] if eos in whole else whole)
    assert any(len(cut) < len(whole) for whole, cut in zip(going_on, stopped, strict=True))


@pytest.mark.parametrize("adapted", [False, True])
def test_settings_that_came_with_a_model_are_not_followed(adapted):
    asked = instances("generate_ids", PROMPTS)
    going_on = language_model().generate_ids(asked)
    model = tiny_model()
    own = model.generation_config
    own.eos_token_id = [going_on[0][3], going_on[1][3]]
    own.repetition_penalty = 3.0
    if adapted:
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    assert lm_of(inference_of(model)).generate_ids(asked) == going_on
    assert model.generation_config is own


def test_a_prompt_that_fills_the_budget_is_answered_with_nothing():
    ids = SEQUENCES[-1].ids
    asked = [("a", ids, len(ids) - 2), ("b", ids[:3], 8), ("c", ids, len(ids))]
    for batch_tokens in (1, 10_000):
        answers = language_model(batch_tokens).generate_ids(instances("generate_ids", asked))
        assert [len(answer) for answer in answers] == [0, 5, 0]


def test_equal_requests_are_forwarded_once(monkeypatch):
    inference, rows = inference_of(tiny_model()), []
    lm = lm_of(inference)
    forward = inference.model.forward

    def counting(*args, **kwargs):
        for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True):
            rows.append(tuple(ids[mask.bool()].tolist()))
        return forward(*args, **kwargs)

    monkeypatch.setattr(inference.model, "forward", counting)
    scores = lm.token_scores(scoring([*SEQUENCES, *SEQUENCES[:5]]))
    assert len(rows) == len(set(rows)) == len(SEQUENCES)
    assert scores[: len(SEQUENCES)][0] == scores[len(SEQUENCES)]
    lm.token_scores(scoring(SEQUENCES))
    assert len(rows) == len(SEQUENCES)


NOTHING = Sequence((5, 6, 7), (IGNORED,) * 3)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("token_scores", ("Who is it?", NOTHING), "without a labelled token .*'Who is it[?]'"),
        (
            "token_scores",
            ("one token", Sequence((5,), (5,))),
            "without a labelled token .*'one tok",
        ),
        ("generate_ids", ("Why?", (), 9), "an empty prompt cannot be continued: 'Why[?]'"),
        ("greedy_suffixes", ("row 7", (5,), 1), "fewer than two tokens .*row 7"),
        ("loglikelihood", ("a b", ""), "nothing to score after 'a b': no continuation"),
    ],
)
def test_what_has_no_answer_is_refused_by_name(kind, arguments, said):
    lm = language_model()
    with pytest.raises(DataError, match=said):
        getattr(lm, kind)(instances(kind, [arguments]))
    assert lm.answers.known == {}


def test_an_evaluation_is_read_again_without_the_model(tmp_path):
    answers = Answers(tmp_path / "answers.jsonl")
    first = evaluate(language_model(answers=answers), tiny_suite().tasks(None, "full"))
    answers.close()
    again = UnlearnLM(Answers(tmp_path / "answers.jsonl"), never)
    assert evaluate(again, tiny_suite().tasks(None, "full")) == first
    with pytest.raises(AssertionError, match="the model was asked"):
        evaluate(UnlearnLM(Answers(), never), tiny_suite().tasks(None, "full"))


@pytest.mark.parametrize("batch_tokens", [1, 7 * 24, 100_000])
def test_metrics_do_not_depend_on_the_batch(batch_tokens):
    tasks = tiny_suite().tasks(None, "full")
    expected = evaluate(language_model(64), tasks)
    actual = evaluate(language_model(batch_tokens), tasks)
    assert actual.metrics == pytest.approx(expected.metrics, rel=1e-4, abs=1e-6)
    for one, two in zip(expected.examples, actual.examples, strict=True):
        assert one["generation"] == two["generation"]
