"""The toy world: deterministic, honest about what is held out."""

import re
import subprocess
import sys

import pytest

from loku_exp.data.toy_facts import AUTHOR_FACTS, PERSON_FACTS, PLACE_FACTS
from loku_exp.data.toy_tofu import load_toy_tofu, problems

WORLD = {"num_authors": 10, "num_forget": 2, "num_others": 15, "world_seed": 0}


def test_the_same_in_processes_with_different_hash_seeds():
    code = f"from loku_exp.data.toy_tofu import load_toy_tofu; print(load_toy_tofu(**{WORLD}).digest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "2")
    }
    assert digests == {load_toy_tofu(**WORLD).digest()}


def test_another_seed_is_another_world():
    assert load_toy_tofu(**WORLD).digest() != load_toy_tofu(**WORLD | {"world_seed": 1}).digest()


def test_the_reference_never_sees_a_forgotten_author():
    corpus = load_toy_tofu(**WORLD)
    forgotten = {row.group for row in corpus.forget}
    assert len(forgotten) == 2
    assert forgotten == {row.group for row in corpus.evaluation["forget"]}
    assert not any(
        name in row.question + row.answer for name in forgotten for row in corpus.reference_training
    )
    assert [r for r in corpus.target_training if r.group in forgotten] == corpus.forget
    assert {row.group for row in corpus.evaluation["retain"]} == {r.group for r in corpus.retain}
    assert [
        r for r in corpus.target_training if r not in corpus.forget
    ] == corpus.reference_training


def test_a_holdout_is_of_further_authors_and_leaves_the_world_as_it_is():
    plain, corpus = load_toy_tofu(**WORLD), load_toy_tofu(**WORLD, num_holdout=3)
    held_out = {row.group for row in corpus.evaluation.pop("holdout")}
    assert len(held_out) == 3
    assert corpus.digest() == plain.digest()
    assert not held_out & {row.group for row in corpus.target_training}
    assert "holdout" not in plain.evaluation
    (said,) = problems(**WORLD, num_holdout=200)
    assert (
        "dataset.num_holdout=200: beside dataset.num_authors=10 and dataset.num_others=15" in said
    )


def test_paraphrases_are_held_out_of_training():
    corpus = load_toy_tofu(**WORLD)
    trained = {row.answer for row in corpus.target_training}
    for rows in corpus.evaluation.values():
        for row in rows:
            assert row.paraphrase not in trained
            assert row.answer in trained
            assert row.paraphrase not in row.wrong
            assert len(set(row.wrong)) == len(row.wrong)


def test_every_answer_form_is_trained_with_some_name():
    trained = {row.answer for row in load_toy_tofu(**WORLD).target_training}
    for facts in (AUTHOR_FACTS, PERSON_FACTS, PLACE_FACTS):
        for _, *forms, _ in facts.values():
            for form in forms:
                said = re.compile(form.replace(".", "[.]").format(name=".+", value=".+"))
                assert any(said.fullmatch(answer) for answer in trained), form


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"num_forget": 6}, "at most half of dataset.num_authors=10"),
        ({"num_authors": 500}, "dataset.num_others=15 the toy world has names for 209"),
        ({"num_others": 101}, "has names for 100 places"),
    ],
)
def test_impossible_worlds_are_problems(knobs, said):
    assert any(said in problem for problem in problems(**WORLD | knobs))
    assert problems(**WORLD) == []
