"""Toy texts: the same everywhere, long enough, with nothing of the forget set elsewhere."""

import os
import subprocess
import sys

import pytest

from loku_exp.data.toy_tdec import FORMS
from loku_exp.models.tokenizer import train_tokenizer
from tests.data.tdec_folder import NO_TEMPLATE

TOY = {
    "num_forget": 4, "num_siblings": 3, "num_retain": 7, "num_unseen": 5, "length": 24, "repeats": 2,
    "world_seed": 0,
}  # fmt: skip


def test_the_same_in_processes_with_different_hash_seeds():
    code = (
        f"from loku_exp.data.toy_tdec import load_toy_tdec; print(load_toy_tdec(**{TOY}).digest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "2")
    }
    assert digests == {load_toy_tdec(**TOY).digest()}


def test_another_seed_gives_other_texts():
    one, other = load_toy_tdec(**TOY), load_toy_tdec(**TOY | {"world_seed": 1})
    assert one.digest() != other.digest()
    assert not {row.text for row in one.forget} & {row.text for row in other.forget}


def test_counts_and_lengths():
    corpus = load_toy_tdec(**TOY)
    counts = {"forget": 4, "siblings": 3, "retain": 7, "held_out": 3, "unseen": 5}
    assert {name: len(getattr(corpus, name)) for name in counts} == counts
    assert len(load_toy_tdec(**TOY | {"num_retain": 1}).held_out) == 2
    for name in counts:
        assert [row.row for row in getattr(corpus, name)] == list(range(counts[name]))
        assert all(len(row.text.split()) >= 24 for row in getattr(corpus, name))
    assert (corpus.length, corpus.repeats, corpus.evaluated) == (24, 2, 3)
    assert corpus.protocol["forget_split"] == "4 toy texts"


def test_no_two_texts_are_equal_and_no_form_is_only_unseen():
    corpus = load_toy_tdec(**TOY)
    sets = [corpus.forget, corpus.siblings, corpus.retain, corpus.held_out, corpus.unseen]
    texts = [row.text for rows in sets for row in rows]
    assert len(set(texts)) == len(texts) == 22
    starts = {form.split()[0] for form in FORMS}
    trained = " ".join(row.text for row in [*corpus.forget, *corpus.siblings, *corpus.retain])
    assert all(f" {start} " in f" {trained} " for start in starts)


@pytest.mark.parametrize("vocabulary", [257, 300, 600])
def test_every_text_fills_its_sequence(vocabulary):
    corpus = load_toy_tdec(**TOY)
    own = train_tokenizer(corpus.texts(NO_TEMPLATE), vocabulary)
    records = corpus.records(own, NO_TEMPLATE, 24)
    assert set(records.evaluation) == {"forget", "sibling", "retain", "unseen"}
    rows = [record for rows in records.evaluation.values() for record in rows]
    assert {len(record.prompt) for record in [*rows, *records.target_training]} == {24}
    forgotten = {record.prompt for record in records.forget}
    assert len(forgotten) == 4
    assert not forgotten & {record.prompt for record in records.reference_training}
    assert len(records.target_training) == 2 * (4 + 3) + len(records.retain)
    assert len(records.evaluation["retain"]) <= 3
