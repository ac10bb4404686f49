"""TDEC's judgement in words, its goals and notes, and its catalogue."""

import pytest

from loku_exp.evaluation.catalogue import NOT_SHOWN, by_name, completed
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.suite import Facts
from loku_exp.evaluation.tdec.judge import catalogue, judge_tdec
from tests.evaluation.tdec.extraction import SIZES, language_model, tdec
from tests.helpers import evaluation_of

TARGET = {"forget_ma": 0.9, "forget_el10": 0.8, "sibling_ma": 0.8, "retain_loss": 1.0}
UNLEARNED = {"forget_ma": 0.21, "forget_el10": 0.01, "sibling_ma": 0.728, "retain_loss": 1.2}
LIMITS = {"n": 10, "el": 0.05, "ma": 0.3, "el_error": 0.003, "ma_error": 0.006, "texts": 64}
MET = {"thresholds": LIMITS, "success": True, "epochs_to_forget": 7, "max_epochs": 20.0}
NOT_MET = MET | {"success": False, "epochs_to_forget": None}


def judged(training, values=None, target=None, reference=None, before=None):
    unlearned = UNLEARNED | (values or {})
    return judge_tdec(
        evaluation_of({name: v for name, v in unlearned.items() if v is not None}),
        evaluation_of(TARGET | (target or {})),
        reference,
        Facts(training, before=before),
    )


def test_the_stop_rule_was_met():
    found = judged(MET)
    assert found.sentence == (
        "forgotten after 7 of at most 20 epochs (EL_10 0.010, MA 0.210), siblings keep 91 % of their MA"
    )
    assert (found.success, found.collapsed) == (True, False)


def test_it_was_met_in_training_and_is_not_as_it_is_evaluated():
    """Checked in another precision, say: what the table shows decides too."""
    found = judged(MET, {"forget_ma": 0.4})
    assert (found.success, found.goals["forget_ma"]) == (False, 0.3)
    assert "but NOT below the thresholds as it is evaluated" in found.sentence


def test_it_was_not_met():
    found = judged(NOT_MET, {"forget_ma": 0.5})
    assert found.sentence.startswith("NOT forgotten within 20 epochs (EL_10 0.010, MA 0.500)")
    assert found.success is False


def test_there_was_none():
    found = judged({"forget_loss": [1.0]})
    assert found.sentence.startswith(
        "trained to the end without a stop rule (EL_10 0.010, MA 0.210)"
    )
    assert (found.success, found.goals) == (None, {})
    (note,) = found.notes
    assert note.startswith("without text the model never saw, and without a reference")


def test_a_model_that_no_rule_ended_is_judged_by_the_runs_thresholds():
    """An attacked model: as it stands, and forgotten by the same limits as the unlearned one."""
    unseen = {"unseen_ma": 0.4, "unseen_el10": 0.2}
    ended = judged(NOT_MET, {"forget_ma": 0.32}, target=unseen)
    found = judged({"thresholds": LIMITS}, {"forget_ma": 0.32}, target=unseen)
    assert found.goals == ended.goals == {"forget_ma": 0.3, "forget_el10": 0.05}
    assert (ended.success, found.success) == (False, False)
    assert found.sentence.startswith("forget set as it stands (EL_10 0.010, MA 0.320)")
    assert judged({"thresholds": LIMITS}).success is True


def test_what_was_not_measured_is_not_below_its_threshold():
    """With evaluation.n=[5] and a rule of n=10 an attacked model counted as forgotten by its MA alone."""
    unmeasured = {"forget_el10": None, "forget_el5": 0.9}
    assert judged({"thresholds": LIMITS}, unmeasured).success is None
    assert judged({"thresholds": LIMITS}, unmeasured | {"forget_ma": 0.32}).success is False
    assert judged(MET, unmeasured).success is True  # the rule measured it
    assert judged(NOT_MET, unmeasured).success is False


def test_a_model_that_was_not_trained_here():
    found = judged({})
    assert found.sentence.startswith("forget set as it stands (EL_10 0.010, MA 0.210)")
    assert (found.success, found.goals) == (None, {})
    (note,) = found.notes
    assert note.startswith("without text the model never saw, and without a reference")


def test_unseen_text_that_gives_no_thresholds_is_not_denied():
    """Of ten words in a row none is guessed: it was said that there is no such text."""
    unseen = {"unseen_ma": 0.1234, "unseen_el10": 0.0, "unseen_el20": 0.0}
    reference = evaluation_of({"forget_ma": 0.3})
    for other in (None, reference):
        found = judged({}, target=unseen, reference=other)
        (note,) = found.notes
        assert note.startswith("unseen text gives no thresholds (EL_10 0.0000, MA 0.1234): nothing")
        assert found.success is None
    assert judged({}, reference=reference).notes == []


def test_a_collapsed_model_has_not_succeeded():
    found = judged(MET, {"retain_loss": 1.0 + 0.7})
    assert found.sentence.startswith(
        "COLLAPSED (retain probability 0.18, less than half of the tar"
    )
    assert (found.success, found.collapsed) == (False, True)
    assert not judged(MET, {"retain_loss": 1.69}).collapsed  # e^-0.69 is more than half
    assert not judged(MET, {"retain_loss": None}).collapsed  # not measured


def test_what_was_kept():
    values = {"reasoning": 0.45, "reasoning_local": 0.3, "dialogue": 0.11}
    target = {"reasoning": 0.5, "reasoning_local": 0.4, "dialogue": 0.1}
    assert judged(MET, values, target).sentence.endswith(
        "siblings keep 91 % of their MA, reasoning 90 % of the target's, local reasoning tasks 75 % of "
        "the target's, dialogue 110 % of the target's"
    )


@pytest.mark.parametrize(
    ("measured", "goes_by"),
    [
        (["reasoning", "dialogue"], "reasoning"),
        (["reasoning_predecessor", "dialogue"], "reasoning_predecessor"),
        (["reasoning_local"], "reasoning_local"),
        (["dialogue"], "dialogue"),
        ([], "sibling_ma"),
    ],
)
def test_the_utility_it_goes_by(measured, goes_by):
    values = dict.fromkeys(measured, 0.4)
    assert judged(MET, values, values).utility == goes_by


def test_a_utility_that_the_target_lacks_says_nothing():
    values = {"reasoning": 0.4, "sibling_ma": 0.5, "retain_ma": 0.5}
    assert judged(MET, values, {"reasoning": 0.0}).utility == "sibling_ma"
    assert judged(MET, values, {"sibling_ma": 0.0, "retain_ma": 0.4}).utility == "retain_ma"
    assert judged(MET, values, {"sibling_ma": 0.0}).utility is None


def test_goals_are_the_thresholds():
    assert judged(MET).goals == {"forget_ma": 0.3, "forget_el10": 0.05}
    assert judged(NOT_MET).goals == {"forget_ma": 0.3, "forget_el10": 0.05}


def test_the_note_says_what_was_compared_with_and_how_sure_it_is():
    (note,) = judged(MET).notes
    assert note == (
        "stop rule: EL_10 < 0.0500 (± 0.0030) and MA < 0.3000 (± 0.0060), measured on 64 unseen texts; "
        "another outcome within the thresholds' error: no"
    )
    (near,) = judged(MET, {"forget_ma": 0.297}).notes
    assert near.endswith("another outcome within the thresholds' error: yes")
    (unknown,) = judged(MET, {"forget_el10": None}).notes
    assert "another outcome" not in unknown
    given = {name: value for name, value in LIMITS.items() if name in ("n", "el", "ma")}
    (note,) = judged(MET | {"thresholds": given}).notes
    assert "EL_10 < 0.0500 (± 0.0000) and MA < 0.3000 (± 0.0000), given" in note


def test_the_note_has_the_reference_and_one_epoch_before():
    reference = evaluation_of({"forget_el10": 0.02, "forget_ma": 0.28})
    (note,) = judged(MET, reference=reference, before={"forget_el10": 0.07, "forget_ma": 0.4}).notes
    assert "; the reference has EL_10 0.0200, MA 0.2800" in note
    assert "; one epoch before: EL_10 0.0700, MA 0.4000" in note
    (note,) = judged(
        MET, reference=evaluation_of({"forget_ma": 0.3}), before={"forget_ma": 0.4}
    ).notes
    assert "the reference" not in note
    assert "one epoch before: MA 0.4000;" in note


# -- catalogue -----------------------------------------------------------------------------------


def test_the_catalogue_has_every_metric_of_the_sets_and_texts():
    suite = tdec()
    found = evaluate(
        language_model("random"), [*suite.tasks(None, "full"), *suite.abilities]
    ).metrics
    known = by_name(suite.catalogue)
    assert found.keys() <= known.keys()
    assert {metric.name for metric in completed(suite.catalogue, found)} == found.keys()
    sets = {
        name for name in known if name.split("_")[0] in ("forget", "sibling", "retain", "unseen")
    }
    quantities = {f"el{n}" for n in SIZES} | {"ma", "loss", "exact6", "exact18"}
    expected = {f"{s}_{q}" for s in ("forget", "sibling", "retain", "unseen") for q in quantities}
    assert sets == expected
    missing = {"sibling_exact6", "sibling_exact18"}  # no sibling has the full length
    assert sets - found.keys() == missing


def test_sizes_stand_in_the_order_of_numbers():
    names = [metric.name for metric in catalogue([10, 2, 1, 100], 200, 50)]
    assert names[:8] == [
        *(f"forget_el{n}" for n in (1, 2, 10, 100)), "forget_ma", "forget_exact50",
        "forget_exact150", "forget_loss",
    ]  # fmt: skip
    assert len(set(names)) == len(names)


def test_a_suffix_of_half_the_length_is_one_metric():
    names = [metric.name for metric in catalogue([1], 2, 1)]
    assert names.count("forget_exact1") == 1


def test_summaries_show_what_forgetting_is_about():
    shown = [metric.name for metric in catalogue([5, 10], 200, 50) if metric.summary]
    assert shown[:3] == ["forget_el5", "forget_el10", "forget_ma"]
    assert {"sibling_ma", "retain_ma", "pile_ppl"} <= set(shown)
    assert not any(name.startswith("unseen") or NOT_SHOWN.search(name) for name in shown)


def test_knowledge_and_utility_are_said():
    known = by_name(catalogue([10], 200, 50))
    assert known["forget_ma"].part == "knowledge"
    assert known["sibling_ma"].part == known["retain_ma"].part == "utility"
    assert known["wikitext_ppl"].part == "ability"
    assert known["pile_ppl"].form == "perplexity"


def test_further_metrics_are_shown_where_they_are_asked_for():
    def quantities(**asked):
        return {metric.name.partition("_")[2] for metric in catalogue([10], 200, 50, **asked)}

    assert quantities(further=True) - quantities() == {"strength", "prob", "rouge"}


def test_what_is_about_the_forget_set_is_said():
    for metric in catalogue([10], 200, 50, further=True):
        assert metric.forget == metric.name.startswith("forget_"), metric.name
