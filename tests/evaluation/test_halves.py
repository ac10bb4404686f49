"""Half of the rows to choose by, the other half to report."""

import math
from statistics import fmean

import pytest
from scipy import stats

from loku_exp.evaluation.halves import evaluations_of, metrics_of, split_examples
from tests.helpers import tiny_suite

SUITE = tiny_suite()


def row(model, name, number, group, **values):
    return {"model": model, "set": name, "row": number, "group": group, "tokens": 5, **values}


def rows_of(models, authors=6, per_author=3):
    return [
        row(model, name, 10 * author + k, f"author {author}")
        for model in models
        for name in ("forget", "retain")
        for author in range(authors)
        for k in range(per_author)
    ]


def test_groups_stay_together_and_all_models_are_split_alike():
    examples = rows_of(["target", "unlearned"])
    selection, reported = split_examples(examples, seed=0)
    assert len(selection) == len(reported) == len(examples) // 2
    for name in ("forget", "retain"):
        chosen, rest = (
            {(e["group"]) for e in half if e["set"] == name} for half in (selection, reported)
        )
        assert len(chosen) == len(rest) == 3
        assert not chosen & rest
    keys = [
        {(e["set"], e["row"]) for e in selection if e["model"] == m}
        for m in ("target", "unlearned")
    ]
    assert keys[0] == keys[1]


def test_the_split_depends_on_the_seed_alone():
    examples = rows_of(["target"])
    first = split_examples(examples, seed=1)
    assert split_examples(list(reversed(examples)), seed=1)[0] == list(reversed(first[0]))
    assert any(split_examples(examples, seed=s)[0] != first[0] for s in (2, 3, 4))


def test_a_single_group_is_split_by_rows():
    examples = [row("target", "forget", k, "forget") for k in range(9)]
    selection, reported = split_examples(examples, seed=0)
    assert (len(selection), len(reported)) == (4, 5)


def test_a_published_log_without_groups_follows_the_other_models():
    examples = rows_of(["target"])
    log = [{k: v for k, v in e.items() if k != "group"} | {"model": "reference"} for e in examples]
    selection, _ = split_examples(examples + log, seed=0)
    rows = [
        {(e["set"], e["row"]) for e in selection if e["model"] == m}
        for m in ("target", "reference")
    ]
    assert rows[0] == rows[1]


def test_metrics_are_those_of_the_formulas():
    nine = {"prob": 0.5, "rouge": 0.25, "truth_ratio": 1.0}
    examples = [
        row("unlearned", s, k, "a", **nine) for s in ("retain", "authors", "facts") for k in "ab"
    ]
    ours, theirs = [0.1, 0.4, 0.9, 1.5], [0.2, 0.3, -1.0, 0.0]
    for model, ratios in (("unlearned", ours), ("reference", theirs)):
        examples += [
            row(model, "forget", k, "a", prob=k / 10, log_ratio=ratio)
            for k, ratio in enumerate(ratios)
        ]
    found = metrics_of(examples, SUITE)["unlearned"]
    assert found["forget_prob"] == pytest.approx(fmean([0, 0.1, 0.2, 0.3]))
    assert found["model_utility"] == pytest.approx(9 / (3 * (2 + 4 + 1)))
    assert found["model_utility_retain"] == pytest.approx(3 / (2 + 4 + 1))
    test = stats.ks_2samp(ours, theirs)
    assert (found["forget_quality"], found["forget_ks"]) == (test.pvalue, test.statistic)
    assert found["forget_shift"] == pytest.approx((0.4 + 0.9) / 2 - 0.1)
    assert "forget_quality" not in metrics_of(examples, SUITE)["reference"]
    assert not any(math.isnan(value) for value in found.values())


def test_a_judge_gets_the_rows_with_their_metrics():
    examples = [row("target", "forget", k, "a", prob=0.5) for k in range(3)]
    examples += [row("unlearned", "retain", k, "a", prob=0.25) for k in range(2)]
    found = evaluations_of(examples, SUITE)
    assert found["target"].metrics == {"forget_prob": 0.5}
    assert found["target"].counts == {"forget": 3}
    assert found["unlearned"].examples == examples[3:]
    assert found["unlearned"].metrics == {"retain_prob": 0.25}
