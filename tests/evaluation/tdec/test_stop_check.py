"""Thresholds by hand, checks against exact values, and what is said of a stop."""

from dataclasses import replace
from statistics import fmean, stdev

import pytest
import torch

from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError
from loku_exp.evaluation.lm.wavefront import greedy_continuations
from loku_exp.evaluation.suite import Evaluation, Facts
from loku_exp.evaluation.tdec.judge import judge_tdec
from loku_exp.evaluation.tdec.metrics import (
    continuations,
    extraction_likelihood,
    memorisation_accuracy,
    wanted,
)
from loku_exp.evaluation.tdec.stop_check import (
    ExtractionStop,
    Thresholds,
    check_forgotten,
    rule_problems,
    thresholds_of,
    would_flip,
)
from loku_exp.runtime.settings import StopRule
from tests.helpers import random_sequence, tiny_model, tiny_records


def unseen(*pairs: tuple[float, float]) -> Evaluation:
    rows = [{"set": "unseen", "el10": el, "ma": ma} for el, ma in pairs]
    return Evaluation({}, {}, [*rows, {"set": "forget", "el10": 1.0, "ma": 1.0}])


def test_thresholds_are_means_of_unseen_text_with_their_standard_error():
    found = thresholds_of(StopRule(n=10, el=None, ma=None), unseen((0.1, 0.2), (0.3, 0.6)))
    assert (found.el, found.ma, found.texts) == (pytest.approx(0.2), pytest.approx(0.4), 2)
    # standard deviation of two values is their distance / sqrt(2); the error divides by sqrt(2) again
    assert (found.el_error, found.ma_error) == (pytest.approx(0.1), pytest.approx(0.2))


def test_unseen_texts_too_short_for_el_are_not_counted():
    """EL was said to be measured on all of them."""
    target = unseen((0.1, 0.2), (0.3, 0.6), (0.1, 0.4))
    del target.examples[2]["el10"]
    found = thresholds_of(StopRule(n=10, el=None, ma=None), target)
    assert (found.el, found.ma, found.texts) == (pytest.approx(0.2), pytest.approx(0.4), 2)
    assert thresholds_of(StopRule(n=10, el=0.1, ma=None), target).texts == 3


def test_given_thresholds_are_taken_as_they_are():
    stop = compose_config(["dataset=toy_tdec", "training=tdec_published"]).training.stop
    assert thresholds_of(stop, unseen()) == Thresholds(10, 0.0499, 0.2994)


@pytest.mark.parametrize("n", [10, 3])
def test_thresholds_without_unseen_text_or_without_this_n_say_what_to_set(n):
    evaluation = unseen() if n == 10 else unseen((0.1, 0.2), (0.3, 0.6))
    with pytest.raises(ConfigError, match=r"training\.stop\.el is to be measured on unseen text"):
        thresholds_of(StopRule(n=n, el=None, ma=None), evaluation)


def test_a_forget_text_that_has_no_ngram_is_refused_before_the_run():
    """With given thresholds too: its EL is of nothing, which would count as forgotten."""
    rule, row = StopRule(n=10, el=0.05, ma=0.3), tiny_records().forget[0]
    forget = {n: replace(row, prompt=tuple(range(n))) for n in (10, 11, 40)}
    (said,) = rule_problems([forget[10], forget[40]], [], (3,), rule)
    assert said.startswith("training.stop.n=10: the shortest text of the forget set has 10 tokens")
    assert "set training.stop.n=9 or less" in said
    assert rule_problems([forget[11], forget[40]], [], (3,), rule) == []


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"nothing can be below 0; lower training\.stop\.n"):
        thresholds_of(StopRule(n=10, el=None, ma=None), unseen((0, 0.2), (0, 0.6)))


@pytest.fixture(scope="module")
def memorising():
    """Texts, and models that know them not at all, by half, and by heart."""
    texts = [random_sequence(24, 0, 61, i).ids for i in range(11)]
    batch = torch.tensor(texts)
    model = tiny_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    states = {}
    for step in range(161):
        if step in (0, 80, 160):
            states[step] = {k: v.clone() for k, v in model.state_dict().items()}
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    return texts, states


@pytest.mark.parametrize("step", [0, 80, 160])
@pytest.mark.parametrize("end_of_text", [None, 7])
def test_checks_agree_with_exact_values_at_every_threshold(memorising, step, end_of_text):
    texts, states = memorising
    model = tiny_model()
    model.load_state_dict(states[step])
    n = 3
    answers = greedy_continuations(model, texts, lambda ids, guess: wanted(ids, guess, n))
    pairs = list(zip(texts, answers, strict=True))
    ma = fmean(memorisation_accuracy(ids, a.argmax) for ids, a in pairs)
    el = fmean(
        extraction_likelihood(ids, continuations(ids, a, end_of_text), n) for ids, a in pairs
    )
    reasons = set()
    for ma_limit in (0.0, ma - 1e-6, ma + 1e-6, 0.5, 1.1):
        for el_limit in (0.0, el / 2, el - 1e-6, el + 1e-6, 1.1):
            found = check_forgotten(model, texts, Thresholds(n, el_limit, ma_limit), end_of_text)
            assert found.forgotten == (ma < ma_limit and el < el_limit)
            assert found.ma <= ma + 1e-9
            assert found.el is None or found.el <= el + 1e-9
            if found.decided_by == "both":
                assert (found.ma, found.el) == (pytest.approx(ma), pytest.approx(el))
            reasons.add(found.decided_by)
    assert {"ma", "both"} <= reasons


def test_a_check_reads_no_more_than_it_needs(memorising):
    texts, states = memorising
    model = tiny_model()
    model.load_state_dict(states[160])
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert check_forgotten(model, texts, Thresholds(3, 0.5, 0.3)).decided_by == "ma"
    assert len(calls) == 1  # eight texts known by heart of eleven are more than .3
    calls.clear()
    assert check_forgotten(model, texts, Thresholds(3, 0.5, 1.1)).decided_by == "el bound"
    assert len(calls) == 2  # two batches of texts, nothing decoded


@pytest.mark.parametrize(
    ("ma", "el", "answer"),
    [
        (0.25, 0.01, False),
        (0.295, 0.01, True),
        (0.31, 0.01, True),
        (0.4, 0.01, False),
        (0.2, None, None),
    ],
)
def test_would_flip(ma, el, answer):
    assert would_flip(ma, el, Thresholds(10, 0.05, 0.3, el_error=0.01, ma_error=0.02)) is answer


def test_standard_error_shrinks_with_the_number_of_texts():
    pairs = [(0.01 * i, 0.2 + 0.01 * i) for i in range(16)]
    found = thresholds_of(StopRule(n=10, el=None, ma=None), unseen(*pairs))
    assert found.el_error == pytest.approx(stdev(el for el, _ in pairs) / 4)


LIMITS = {"n": 10, "el": 0.05, "ma": 0.40, "el_error": 0.01, "ma_error": 0.02, "texts": 4}


def said_of_the_stop(metrics, before=None, **thresholds):
    facts = Facts({"thresholds": LIMITS | thresholds, "success": True, "epochs_to_forget": 2,
                   "max_epochs": 3}, before=before)  # fmt: skip
    target = Evaluation({"forget_ma": 0.9}, {}, [])
    (note,) = judge_tdec(Evaluation(metrics, {}, []), target, None, facts).notes
    return note


@pytest.mark.parametrize(
    ("ma", "el", "flips"),
    [(0.30, 0.03, "no"), (0.385, 0.03, "yes"), (0.405, 0.03, "yes"), (0.43, 0.03, "no")],
)
def test_whether_the_outcome_hangs_on_the_error_of_the_thresholds(ma, el, flips):
    note = said_of_the_stop(
        {"forget_ma": ma, "forget_el10": el}, {"forget_ma": 0.5, "forget_el3": 0.1}
    )
    assert note.endswith(f"another outcome within the thresholds' error: {flips}")
    assert "one epoch before: MA 0.5000;" in note  # nothing of another n


def test_without_el_nothing_is_said_of_flips():
    note = said_of_the_stop({"forget_ma": 0.5}, el_error=0.0, ma_error=0.0)
    assert "another outcome" not in note
    assert "one epoch before" not in note


def test_the_rule_of_a_suite_checks_the_forget_set(memorising):
    texts, states = memorising
    model = tiny_model()
    model.load_state_dict(states[160])
    limits = Thresholds(3, 0.5, 0.3)
    stop = ExtractionStop(texts, limits, None)
    assert stop(model) == check_forgotten(model, texts, limits)
    assert stop.thresholds == {
        "n": 3, "el": 0.5, "ma": 0.3, "el_error": 0.0, "ma_error": 0.0, "texts": 0
    }  # fmt: skip
    assert stop(model).values().keys() == {"check_ma"}
    assert check_forgotten(model, texts, Thresholds(3, 0.5, 1.1)).values().keys() == {
        "check_ma", "check_el"
    }  # fmt: skip
