"""Texts of a user's own: read, kept apart, cut, and what is odd in them said with row numbers."""

import json
import logging

import pytest

from loku_exp.data.own_texts import load_texts, problems
from loku_exp.errors import DataError
from loku_exp.models.tokenizer import train_tokenizer
from tests.data.tdec_folder import NO_TEMPLATE, words

TOKENIZER = train_tokenizer([words(200, seed) for seed in range(3)], 300)
FORGET = [words(40, seed) for seed in (1, 2, 3)]
RETAIN = [words(40, seed) for seed in (11, 12, 13, 14)]


@pytest.fixture
def file(tmp_path):
    def file(name, texts, column="text"):
        place = tmp_path / name
        rows = [json.dumps({column: text}) for text in texts]
        place.write_text("\n\n".join(texts) if name.endswith(".txt") else "\n".join(rows))
        return str(place)

    return file


def load(file, **knobs):
    given = {"forget": file("f.jsonl", FORGET), "retain": file("r.txt", RETAIN)}
    return load_texts(**given | knobs)


def records(corpus, length=512):
    return corpus.records(TOKENIZER, NO_TEMPLATE, length)


def test_sets_and_what_they_are_for(file):
    found = records(load(file, holdout=file("h.jsonl", [words(40, 21)]), length=16, evaluated=2))
    assert [len(found.forget), len(found.retain)] == [3, 4]
    assert {name: len(rows) for name, rows in found.evaluation.items()} == {
        "forget": 3,
        "retain": 2,
        "unseen": 1,
    }
    assert found.target_training == [*found.forget, *found.retain]
    assert found.reference_training == found.retain
    for row in found.forget:
        assert row.answer.labels == row.answer.ids
        assert len(row.answer.ids) == 16
    assert TOKENIZER.decode(found.forget[1].answer.ids) == TOKENIZER.decode(
        TOKENIZER(FORGET[1]).input_ids[:16]
    )


def test_a_column_of_another_name(file):
    corpus = load_texts(
        forget=file("f.jsonl", FORGET, "body"),
        retain=file("r.jsonl", RETAIN, "body"),
        column="body",
    )
    assert [text.text for text in corpus.forget] == FORGET
    with pytest.raises(
        DataError,
        match=r"r\.jsonl, line 1: lacks text; it has body; name the column: dataset.column=\.\.\.",
    ):
        load_texts(forget=file("f.txt", FORGET), retain=file("r.jsonl", RETAIN, "body"))


def test_what_shares_a_passage_is_named_or_dropped(file):
    mixed = file("r.jsonl", [RETAIN[0], f"{RETAIN[1]} {FORGET[2]}", RETAIN[2]])
    with pytest.raises(
        DataError, match=r"dataset\.retain: 1 texts share .* row 1 \(forget row 2\)"
    ):
        load(file, retain=mixed)
    kept = load(file, retain=mixed, overlap="drop").retain
    assert [text.row for text in kept] == [0, 2]
    with pytest.raises(DataError, match="all texts share a passage"):
        load(file, retain=file("same.jsonl", FORGET), overlap="drop")
    with pytest.raises(DataError, match=r"dataset\.holdout: 3 texts"):
        load(file, holdout=file("h.jsonl", FORGET))


def test_a_holdout_is_apart_from_what_is_trained_on(file):
    holdout = file("h.jsonl", [words(40, 21), RETAIN[2]])
    with pytest.raises(
        DataError,
        match=r"dataset\.holdout: 1 texts share .* the retain set: row 1 \(retain row 2\)",
    ):
        load(file, holdout=holdout)
    assert [text.row for text in load(file, holdout=holdout, overlap="drop").holdout] == [0]


def test_what_is_odd_is_said_with_row_numbers(file, caplog):
    caplog.set_level(logging.WARNING)
    corpus = load(file, forget=file("g.jsonl", [*FORGET, FORGET[0]]), length=8)
    records(corpus)
    assert "dataset.forget: 2 rows (0, 3) have the text of another row" in caplog.text
    assert "dataset.retain: 4 rows (0, 1, 2, 3) have more than dataset.length=8" in caplog.text


def test_a_text_of_one_token_and_a_length_beyond_the_context(file):
    with pytest.raises(DataError, match=r"dataset\.forget: row 1 has one token"):
        records(load(file, forget=file("g.jsonl", [FORGET[0], "a"])))
    with pytest.raises(DataError, match=r"dataset\.length=200 exceeds .* 100 tokens"):
        records(load(file), length=100)


def test_identity_is_content_not_place(file, tmp_path):
    one = load(file)
    (tmp_path / "moved").mkdir()
    moved = str((tmp_path / "f.jsonl").rename(tmp_path / "moved/other.jsonl"))
    again = load_texts(forget=moved, retain=file("r.txt", RETAIN))
    assert [t.text for t in again.forget] == FORGET
    assert again.digest() == load(file).digest() == one.digest()
    assert load(file, length=100).digest() != one.digest()
    assert one.training_digest("target") != one.training_digest("reference")


def test_what_is_not_given_is_asked_for():
    assert problems() == [
        "dataset.forget is not set; give a jsonl, csv, parquet or txt file: dataset.forget=FILE",
        "dataset.retain is not set; give a jsonl, csv, parquet or txt file: dataset.retain=FILE",
    ]
    with pytest.raises(DataError, match=r"dataset\.retain is not set"):
        load_texts(forget="x.jsonl")


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"\xff\xfe\x00", b"[]", b"{"])
def test_a_file_that_holds_no_texts_is_named(tmp_path, file, content):
    place = tmp_path / "odd.jsonl"
    place.write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.jsonl"):
        load(file, forget=str(place))


def test_a_column_of_files_that_have_none_is_refused(tmp_path):
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.txt").write_text(f"What is {name} here is a text of its own.\n")
    sets = {name: str(tmp_path / f"{name}.txt") for name in ("forget", "retain")}
    with pytest.raises(DataError, match=r"dataset.column=x: txt files have no columns"):
        load_texts(**sets, column="x")
