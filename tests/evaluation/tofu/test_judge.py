"""TOFU's judgement in words, the metric it goes by, its catalogue, and metrics of some rows."""

from dataclasses import replace

import pytest

from loku_exp.evaluation.catalogue import by_name, completed
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.suite import Facts
from loku_exp.evaluation.tofu.judge import CATALOGUE, aggregate, judge_tofu
from tests.helpers import (
    evaluation_of,
    inference_of,
    lm_of,
    tiny_model,
    tiny_records,
    tiny_suite,
)

TARGET = {"model_utility": 0.5, "retain_prob": 0.9}
UNLEARNED = {
    "model_utility": 0.43,
    "retain_prob": 0.8,
    "forget_prob": 0.25,
    "forget_quality": 3e-5,
    "forget_shift": 0.4,
}
REFERENCE = evaluation_of({"forget_prob": 0.11})


def judged(values=None, target=None, reference=REFERENCE, rows=300, generations=(), before=()):
    unlearned = UNLEARNED | (values or {})
    unlearned = {name: value for name, value in unlearned.items() if value is not None}
    texts = [
        [{"set": "retain", "row": k, "generation": text} for k, text in enumerate(said)]
        for said in (generations, before)
    ]
    return judge_tofu(
        evaluation_of(unlearned, texts[0], {"forget": rows}),
        evaluation_of(TARGET | (target or {}), texts[1]),
        reference,
        Facts(),
    )


def test_distinguishable_because_it_knows_more():
    found = judged()
    assert found.sentence == (
        "distinguishable from retraining (p = 3e-05): it prefers the truth more than the reference "
        "does, forget probability 0.250 (reference 0.110), utility 86 % of the target's"
    )
    assert (found.success, found.collapsed, found.goals) == (False, False, {})


def test_distinguishable_because_it_avoids_the_truth():
    found = judged({"forget_shift": -0.1, "forget_prob": 0.004})
    assert "it avoids the truth more than the reference does" in found.sentence
    assert "forget probability 0.004 (reference 0.110)" in found.sentence
    assert found.success is False


@pytest.mark.parametrize("quality", [0.05, 0.31, 1.0])
def test_of_models_that_cannot_be_told_apart_no_side_is_named(quality):
    found = judged({"forget_quality": quality})
    assert found.sentence.startswith(f"not distinguishable from retraining (p = {quality:.2g})")
    assert "truth" not in found.sentence
    assert "forget probability" not in found.sentence
    assert (found.success, found.collapsed) == (True, False)


@pytest.mark.parametrize(("before", "said"), [(0.34, True), (0.05, True), (0.0499, False)])
def test_where_the_target_passes_as_well_that_is_said(before, said):
    found = judged({"forget_quality": 0.34}, {"forget_quality": before})
    assert (f"but nor was the target (p = {before:.2g}), so this" in found.sentence) is said
    assert found.success is True  # the protocol's rule stays


def test_just_below_the_level_they_can():
    assert judged({"forget_quality": 0.0499}).success is False


def test_collapse_comes_first_and_is_no_success():
    found = judged({"forget_quality": 0.9, "retain_prob": 0.01})
    assert found.sentence.startswith(
        "COLLAPSED (retain probability 0.01, less than half of the target's 0.9), not distinguishable"
    )
    assert (found.success, found.collapsed) == (False, True)


def test_degenerate_generations_are_a_collapse():
    fine = ["a good answer to this"] * 10
    broken = ["so " * 30] * 4 + fine[:6]
    found = judged({"forget_quality": 0.9}, generations=broken, before=fine)
    assert found.sentence.startswith("COLLAPSED (40% of its retain generations are empty or repeat")
    assert (found.success, found.collapsed) == (False, True)
    assert not judged({"forget_quality": 0.9}, generations=broken, before=broken).collapsed


def test_without_reference_nothing_is_judged():
    for absent in ({"forget_quality": None}, {}):
        found = judged(absent, reference=None)
        assert "no reference, so forgetting cannot be judged" in found.sentence
        assert found.success is None
    assert judged({"forget_quality": None}).success is None  # e.g. of other rows


def test_what_was_kept_names_the_retain_third_too():
    both = judged({"model_utility_retain": 0.3}, {"model_utility_retain": 0.6})
    assert both.sentence.endswith("utility 86 % of the target's (its retain third 50 %)")
    alone = judged(
        {"model_utility": None, "model_utility_retain": 0.3}, {"model_utility_retain": 0.6}
    )
    assert alone.sentence.endswith("retain third 50 % of the target's")
    none = judged({"model_utility": None}, {"model_utility": 0.0})
    assert none.sentence.endswith("(reference 0.110)")


@pytest.mark.parametrize(
    ("utility", "third", "goes_by"),
    [
        (0.5, 0.8, "model_utility"),
        (0.4, 0.8, "model_utility"),  # half of it is enough
        (0.399, 0.8, "model_utility_retain"),  # two thirds at chance
        (0.0, 0.8, "model_utility_retain"),
        (0.5, 0.0, "model_utility"),
    ],
)
def test_the_utility_it_goes_by(utility, third, goes_by):
    target = {"model_utility": utility, "model_utility_retain": third}
    values = {"model_utility": 0.1, "model_utility_retain": 0.2}
    assert judged(values, target).utility == goes_by


def test_where_there_is_no_model_utility_it_goes_by_the_retain_probability():
    assert judged({"model_utility": None}).utility == "retain_prob"
    assert judged({"model_utility": None, "retain_prob": None}).utility is None


@pytest.mark.parametrize(("rows", "said"), [(40, 1), (1, 1), (41, 0), (300, 0)])
def test_few_rows_have_little_power(rows, said):
    notes = judged(rows=rows).notes
    assert len(notes) == said
    assert all(f"only {rows} rows" in note and "little power" in note for note in notes)


def test_of_what_is_not_compared_nothing_is_said():
    assert judged({"forget_quality": None}, rows=40).notes == []


# -- catalogue and aggregates --------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated():
    def ask(reference, depth="full"):
        return evaluate(lm_of(inference_of(tiny_model())), tiny_suite().tasks(reference, depth))

    reference = [{"set": "forget", "row": row, "log_ratio": 0.1 * row} for row in range(6)]
    return ask(evaluation_of({}, reference)), ask(None), ask(None, "reduced"), reference


def test_the_catalogue_has_every_metric_and_no_other(evaluated):
    compared, alone, reduced, _ = evaluated
    known = by_name(CATALOGUE)
    assert compared.metrics.keys() == known.keys()
    assert known.keys() - alone.metrics.keys() == {"forget_quality", "forget_ks", "forget_shift"}
    assert reduced.metrics.keys() < alone.metrics.keys()
    assert completed(CATALOGUE, compared.metrics) == list(CATALOGUE)
    assert len({metric.label for metric in CATALOGUE}) == len(CATALOGUE)


def test_aggregates_of_rows_are_those_of_the_evaluation_whatever_a_set_is_called():
    """Of a set with an underscore in its name there were none: no halves, no interval, no search by it."""
    known = tiny_records()
    sets = {"near_kin": known.evaluation["retain"], "forget": known.evaluation["forget"]}
    suite = tiny_suite(records=replace(known, evaluation=sets))
    found = evaluate(lm_of(inference_of(tiny_model())), suite.tasks(None, "full"))
    assert "near_kin_prob" in found.metrics
    assert suite.aggregate(found.examples, None) == pytest.approx(found.metrics)


def test_utility_of_rows_needs_the_three_sets_and_no_other(evaluated):
    rows = [row for row in evaluated[0].examples if row["set"] in ("retain", "authors", "facts")]
    assert aggregate(rows)["model_utility"] == evaluated[0].metrics["model_utility"]
    assert "model_utility" not in aggregate([row for row in rows if row["set"] != "facts"])


def test_what_is_learned_of_it_is_in_the_catalogue(evaluated):
    known = by_name(CATALOGUE)
    assert known["forget_prob"].part == "knowledge"
    assert known["retain_prob"].part == known["model_utility"].part == "utility"
    assert (known["forget_quality"].form, known["forget_quality"].better) == ("p", "none")


def test_aggregates_of_all_rows_are_the_metrics_of_the_tasks(evaluated):
    compared, alone, reduced, reference = evaluated
    assert aggregate(compared.examples, reference) == pytest.approx(compared.metrics)
    assert aggregate(alone.examples) == pytest.approx(alone.metrics)
    assert aggregate(reduced.examples) == pytest.approx(reduced.metrics)


def test_rows_of_other_questions_are_not_compared(evaluated):
    compared, _, _, reference = evaluated
    assert "forget_quality" not in aggregate(compared.examples, reference[:-1])
    assert "forget_quality" not in aggregate(compared.examples, [])


def test_a_utility_without_its_retain_third_is_gone_by():
    """E.g. of a log that has the nine values' mean alone."""
    assert judged(target={"model_utility": 0.3}).utility == "model_utility"


def test_what_is_about_the_forget_set_is_said():
    for metric in CATALOGUE:
        assert metric.forget == metric.name.startswith("forget_"), metric.name


def test_tables_of_many_runs_show_what_forgetting_is_about():
    shown = [metric.name for metric in CATALOGUE if metric.summary]
    assert shown == [
        "forget_prob", "forget_rouge", "retain_prob",
        "forget_quality", "forget_ks", "forget_shift", "model_utility", "model_utility_retain",
    ]  # fmt: skip


def test_a_utility_that_the_target_lacks_is_not_gone_by():
    target, model = {"model_utility_retain": 0.8}, UNLEARNED | {"model_utility_retain": 0.7}
    found = judge_tofu(evaluation_of(model), evaluation_of(target), REFERENCE, Facts())
    assert found.utility == "model_utility_retain"
