"""TOFU's stop rule: what it measures is what the evaluation says, and when it ends."""

from dataclasses import replace

import pytest

from loku_exp.errors import ConfigError
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.tofu.judge import log_ratios
from loku_exp.evaluation.tofu.stop_check import (
    AtReference,
    at_reference,
    losses_of,
    meeting_problems,
)
from loku_exp.runtime.settings import MeetReference
from tests.helpers import (
    evaluation_of,
    inference_of,
    lm_of,
    plain_scores,
    tiny_model,
    tiny_records,
    tiny_suite,
)

ROWS = tiny_records().evaluation["forget"]
PROB, SHIFT = MeetReference(meets="forget_prob"), MeetReference(meets="forget_shift")


@pytest.fixture(scope="module")
def evaluated():
    """A model, and itself compared with invented ratios."""
    reference = [{"set": "forget", "row": row.row, "log_ratio": 0.3 * row.row} for row in ROWS]
    tasks = tiny_suite().tasks(evaluation_of({}, reference), "reduced")
    return evaluate(lm_of(inference_of(tiny_model())), tasks), evaluation_of({}, reference)


def test_it_measures_what_the_evaluation_does(evaluated):
    found, reference = evaluated
    ratios = log_ratios(reference.examples)
    for metric in ("forget_prob", "forget_shift"):
        check = AtReference(ROWS, metric, 0.0, ratios)(tiny_model())
        assert check.value == pytest.approx(found.metrics[metric], abs=1e-6)
        assert check.values() == {f"check_{metric}": check.value}


def test_losses_are_those_of_each_text_alone():
    texts = [row.answer for row in ROWS]
    for text, loss in zip(texts, losses_of(tiny_model(), texts), strict=True):
        logprobs, _ = plain_scores(tiny_model(), text)
        assert loss == pytest.approx(-sum(logprobs) / len(logprobs), abs=1e-5)


def test_it_ends_at_the_goal_or_below():
    model = tiny_model()
    value = AtReference(ROWS, "forget_prob", 0.0, {})(model).value
    answers = [AtReference(ROWS, "forget_prob", goal, {})(model).forgotten for goal in
               (value - 1e-6, value, value + 1e-6)]  # fmt: skip
    assert answers == [False, True, True]


def test_the_goal_is_the_references():
    target = evaluation_of({"forget_prob": 0.9, "forget_shift": 0.4})
    reference = evaluation_of({"forget_prob": 0.3})
    made = [at_reference(ROWS, rule, target, reference).thresholds for rule in (PROB, SHIFT)]
    assert made[0] == {"metric": "forget_prob", "goal": 0.3}
    assert made[1] == {"metric": "forget_shift", "goal": 0.0}


@pytest.mark.parametrize(("rule", "value"), [(PROB, 0.3), (PROB, 0.2), (SHIFT, -0.1)])
def test_a_target_that_is_there_already_is_refused(rule, value):
    target = evaluation_of({rule.meets: value})
    with pytest.raises(ConfigError, match="nothing to come down to before the first update"):
        at_reference(ROWS, rule, target, evaluation_of({"forget_prob": 0.3}))


def test_a_shift_needs_paraphrases_and_wrong_answers():
    bare = [replace(row, alternatives={}) for row in ROWS]
    assert meeting_problems(ROWS, SHIFT) == meeting_problems(bare, PROB) == []
    assert "use training.stop={meets: forget_prob}" in meeting_problems(bare, SHIFT)[0]


@pytest.mark.parametrize("rule", [PROB, SHIFT])
def test_what_was_not_measured_is_said(rule):
    with pytest.raises(ConfigError, match="was not measured of target and reference"):
        at_reference(ROWS, rule, evaluation_of({}), evaluation_of({}))
