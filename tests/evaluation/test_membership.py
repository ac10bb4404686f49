"""Membership inference: scores and AUC by hand and by counting, privleak, and the task around them."""

import math
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loku_exp.data.records import IGNORED
from loku_exp.evaluation import standard_scores as of_standard_scores
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.membership import (
    auc,
    membership_metrics,
    membership_words,
    min_k,
    privleak,
    with_membership,
    zlib_ratio,
)
from loku_exp.evaluation.requests import SuiteLM
from loku_exp.evaluation.standard_scores import STANDARD_SCORES, standard_score, standard_scores
from loku_exp.evaluation.suite import Suite
from loku_exp.methods.wrapper import Wrapper
from tests.helpers import evaluation_of, inference_of, never, plain_scores, tiny_model, tiny_records

SCORES = ["loss", "zlib", "min_k", "min_k_plus"]


def test_scores_by_hand():
    assert min_k([-0.1, -2, -0.5, -3, -0.2]) == pytest.approx(2.5)  # the lowest two of five
    assert min_k([-0.7]) == pytest.approx(0.7)  # at least one
    text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    assert zlib_ratio(1.5, text) == pytest.approx(1.5 / len(zlib.compress(text.encode())))
    assert zlib_ratio(1.0, "\ud800") > 0  # no text that UTF-8 has


def test_standard_score_by_hand():
    """p = (.7, .2, .1) and the label of .2: mu -.80182, sigma .70241."""
    logits = torch.tensor([[0.7, 0.2, 0.1], [1.0, 1.0, 1.0]]).log()
    found = standard_score(logits, torch.tensor([1, 0])).tolist()
    assert found[0] == pytest.approx(-1.14861, abs=1e-4)
    assert found[1] == pytest.approx(
        0, abs=1e-3
    )  # all alike: nothing is unusual, and nothing over 0


def test_auc_by_hand():
    pairs = [(True, 1), (True, 2), (False, 3), (False, 2)]
    assert auc(pairs) == pytest.approx(0.875)  # three won, one tied of four
    assert auc([(True, 1.0)]) is None
    assert auc([(True, 1.0), (False, 1.0)]) == 0.5


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=14))
def test_auc_is_the_share_of_pairs_that_are_won(pairs):
    members = [score for member, score in pairs if member]
    others = [score for member, score in pairs if not member]
    if not members or not others:
        assert auc(pairs) is None
        return
    won = sum((o > m) + 0.5 * (o == m) for o in others for m in members)
    assert auc(pairs) == pytest.approx(won / len(members) / len(others))


def test_privleak_by_hand():
    assert privleak(0.9, 0.5) == pytest.approx(-80)
    assert privleak(0.3, 0.5) == pytest.approx(40)
    assert privleak(0.6, 0.6) == 0
    assert privleak(0.9, 1.0) is None
    # MUSE's form, whose AUC is that of members above the others
    assert privleak(0.9, 0.7) == pytest.approx(100 * (0.1 - 0.3) / 0.3)


def with_(scores, holdout=True):
    """A suite of nothing but membership, whose holdout is the retain set."""
    records = tiny_records().evaluation
    others = records["retain"] if holdout else []
    plain = Suite(tasks=lambda reference, depth: [], catalogue=[], judge=never)
    return with_membership(plain, records["forget"], others, scores)


@pytest.fixture(scope="module")
def tasks_of():
    return lambda reference=None, scores=tuple(SCORES): with_(scores).tasks(reference, "full")


@torch.no_grad()
def plain_standard_scores(model, text):
    """Token by token and word by word, of one unpadded text."""
    found = []
    for place in (t for t in range(1, len(text.ids)) if text.labels[t] != IGNORED):
        shares = model(input_ids=torch.tensor([text.ids[:place]])).logits[0, -1].softmax(-1)
        draws = [(float(p), math.log(p)) for p in shares.double()]
        mean = sum(p * value for p, value in draws)
        spread = math.sqrt(sum(p * (value - mean) ** 2 for p, value in draws))
        found.append((draws[text.ids[place]][1] - mean) / spread)
    return found


def language_model(model=None, **options):
    inference = inference_of(model or tiny_model(), **options)
    return SuiteLM(Answers(), lambda: inference, {STANDARD_SCORES: standard_scores})


def test_a_model_that_reads_prompts_scores_the_same(tasks_of):
    class Reading(Wrapper):
        def forward(self, prompt_lengths=None, **given):
            assert prompt_lengths.tolist() == [3]
            return self.wrapped(**given)

    plain = evaluate(language_model(), tasks_of())
    reading = evaluate(language_model(Reading(tiny_model()), reads_prompts=True), tasks_of())
    columns = [
        [row[name] for row in found.examples for name in SCORES] for found in (plain, reading)
    ]
    assert columns[1] == pytest.approx(columns[0], rel=1e-4, abs=1e-3)  # z of a flat distribution


@pytest.mark.parametrize("batch_tokens", [8, 30])
def test_a_batch_has_no_more_tokens_than_are_allowed(tasks_of, batch_tokens, monkeypatch):
    """On a CPU it had 1024 whatever was set."""
    sizes, padded = [], of_standard_scores.pad
    monkeypatch.setattr(
        of_standard_scores,
        "pad",
        lambda texts: sizes.append((len(texts), max(len(t.ids) for t in texts))) or padded(texts),
    )
    evaluate(language_model(batch_tokens=batch_tokens), tasks_of())
    assert all(rows == 1 or rows * width <= batch_tokens for rows, width in sizes)
    assert sum(rows for rows, _ in sizes) == 12


def test_what_is_known_is_not_asked_again(tasks_of):
    answers = Answers()
    asked = []

    def counted(inference, requests, wanted):
        asked.append(len(requests))
        return standard_scores(inference, requests, wanted)

    for _ in range(2):
        lm = SuiteLM(answers, lambda: inference_of(tiny_model()), {STANDARD_SCORES: counted})
        evaluate(lm, tasks_of())
    assert asked == [12]
    with pytest.raises(AttributeError, match="no request type 'nope'"):
        lm.nope  # noqa: B018


def test_the_task_gives_what_its_formulas_give_for_each_row(tasks_of):
    model, records = tiny_model(), tiny_records().evaluation
    reference = evaluation_of({"mia_min_k": 0.25})
    found = evaluate(language_model(model), tasks_of(reference))
    pairs: dict[str, list] = {name: [] for name in SCORES}
    for member, rows in ((True, records["forget"]), (False, records["retain"])):
        for row in rows:
            logprobs, _ = plain_scores(model, row.answer)
            loss = -sum(logprobs) / len(logprobs)
            for name, score in (
                ("loss", loss),
                ("zlib", zlib_ratio(loss, row.reference)),
                ("min_k", min_k(logprobs)),
                ("min_k_plus", min_k(plain_standard_scores(model, row.answer))),
            ):
                pairs[name].append((member, score))
    expected = {f"mia_{name}": auc(of_score) for name, of_score in pairs.items()}
    expected["mia_privleak"] = privleak(expected["mia_min_k"], 0.25)
    assert found.metrics == pytest.approx(expected)
    assert found.counts == {"mia": 12}
    groups = {row["group"] for row in found.examples}
    assert groups == {f"author {i}" for i in range(3)} | {f"holdout author {i}" for i in (5, 6, 7)}
    assert {metric.name for metric in membership_words()} == found.metrics.keys()
    again = membership_metrics(found.examples, found.examples)
    assert again == pytest.approx(expected | {"mia_privleak": 0.0})


def test_without_a_holdout_a_score_or_a_reference(tasks_of):
    assert with_([]).tasks(None, "full") == with_(SCORES, holdout=False).tasks(None, "full") == []
    assert with_([], holdout=False).described == with_(SCORES).described == ()
    (said,) = with_(SCORES, holdout=False).described
    assert said == "no membership inference, for there is no holdout"
    assert with_(SCORES).tasks(None, "reduced") == []
    found = evaluate(language_model(), tasks_of(scores=["loss"]))
    assert found.metrics.keys() == {"mia_loss"}
    everything = evaluate(language_model(), tasks_of())
    assert everything.metrics.keys() == {f"mia_{name}" for name in SCORES}
    unknowable = evaluation_of({"mia_min_k": 1.0})  # nothing to be a share of
    assert "mia_privleak" not in evaluate(language_model(), tasks_of(unknowable)).metrics


def test_a_suite_keeps_its_own_aggregates():
    rows = [
        {"set": "forget", "row": 0, "prob": 0.5},
        {"set": "mia", "row": 0, "member": True, "loss": 1.0},
    ]
    rows.append({"set": "mia", "row": 1, "member": False, "loss": 2.0})
    assert with_(SCORES).aggregate(rows, None) == {"forget_prob": 0.5, "mia_loss": 1.0}
