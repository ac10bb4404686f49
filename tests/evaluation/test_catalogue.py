"""How a metric is written, which way to its reference, and which of them are shown."""

import math

import pytest
from pydantic import ValidationError

from loku_exp.evaluation.catalogue import LEAST_P, Metric, by_name, completed, of_task

FORMS = {
    name: Metric(name=name, label=name, form=name)
    for name in ("share", "signed", "p", "perplexity", "count")
}


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        ("share", 0.5, "0.500"),
        ("share", 0.0004, "0.000"),
        ("share", 0, "0.000"),
        ("p", 1.234e-7, "1e-07"),
        ("p", 0.001, "0.001"),
        ("p", 0.0312, "0.031"),
        ("p", 1.0, "1"),
        ("signed", 0.083, "+0.08"),
        ("signed", -7.6, "-7.60"),
        ("perplexity", 31.456, "31.46"),
        ("perplexity", 999.96, "1000"),
        ("perplexity", 15099.4, "15099"),
        ("perplexity", 1e20, "100000000000000000000"),
        ("count", 40.0, "40"),
    ],
)
def test_a_metric_has_the_digits_that_mean_something(form, value, shown):
    assert FORMS[form].written(value) == shown


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_written(form, value):
    assert FORMS[form].written(value) == ""


@pytest.mark.parametrize(
    ("form", "ours", "theirs", "shown"),
    [
        ("share", 0.079, 0.115, "↑ 0.04"),
        ("share", 0.5, 0.104, "↓ 0.40"),
        ("share", 0.079, 0.081, "="),
        ("share", 0.079, 0.0841, "↑ 0.01"),
        ("perplexity", 15099.4, 6490.0, "↓ 8609"),
        ("perplexity", None, 6490.0, ""),
        ("share", 0.5, None, ""),
    ],
)
def test_arrows_point_to_the_reference(form, ours, theirs, shown):
    assert FORMS[form].arrow(ours, theirs) == shown


def test_a_difference_within_chance_has_no_arrow():
    share = FORMS["share"]
    assert share.arrow(0.5, 0.45, chance=0.06) == "≈"
    assert share.arrow(0.5, 0.45, chance=0.04) == "↓ 0.05"
    assert share.arrow(0.5, 0.501, chance=0.06) == "="


@pytest.mark.parametrize("better", ["high", "low", "none"])
def test_what_is_not_to_meet_the_reference_has_no_arrow(better):
    assert Metric(name="x", label="x", better=better).arrow(0.1, 0.9) == ""


def test_p_values_are_averaged_as_logarithms():
    p = FORMS["p"]
    assert p.scaled(1e-3) == pytest.approx(-3)
    assert p.scaled(0.0) == math.log10(LEAST_P)
    mean = (p.scaled(1e-2) + p.scaled(1e-6)) / 2
    assert 10**mean == pytest.approx(1e-4)
    for form in ("share", "signed", "perplexity", "count"):
        assert FORMS[form].scaled(0.25) == 0.25


def test_metrics_there_are_come_first_then_those_of_other_tasks():
    known = [Metric(name=name, label=name) for name in ("b", "a", "absent")]
    found = completed(known, ["zeta_acc", "a", "alpha_f1", "b"])
    assert [metric.name for metric in found] == ["b", "a", "alpha_f1", "zeta_acc"]
    assert completed(known, []) == []


@pytest.mark.parametrize(
    "name", ["arc_easy_acc_norm", "wizard_loss", "lambada_perplexity", "x_stderr"]
)
def test_what_is_of_no_use_in_a_table_is_left_out_unless_the_suite_has_it(name):
    assert completed([], [name]) == []
    own = Metric(name=name, label="mine")
    assert completed([own], [name]) == [own]


def test_a_task_of_no_suite_has_words_too():
    words = {
        name: (of_task(name).label, of_task(name).form)
        for name in (
            "arc_easy_acc",
            "blended_f1",
            "news_ppl",
            "gsm8k_exact_match_strict",
            "acc_words",
        )
    }
    assert words == {
        "arc_easy_acc": ("arc_easy, accuracy", "share"),
        "blended_f1": ("blended, F1", "share"),
        "news_ppl": ("news, perplexity per token", "perplexity"),
        "gsm8k_exact_match_strict": ("gsm8k_exact_match_strict", "share"),
        "acc_words": ("acc_words", "share"),
    }
    assert of_task("arc_easy_acc").part == "ability"


def test_a_misspelt_word_is_refused():
    with pytest.raises(ValidationError, match="form"):
        Metric(name="x", label="x", form="percent")
    with pytest.raises(ValidationError, match="bettter"):
        Metric(name="x", label="x", bettter="high")


def test_by_name():
    assert by_name(FORMS.values()) == FORMS
