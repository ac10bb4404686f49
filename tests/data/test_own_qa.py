"""Questions and answers of a user's own: columns, optional parts, overlaps."""

import json
import logging

import pytest

from loku_exp.data.own_qa import load_qa, problems
from loku_exp.errors import DataError

FORGET = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(3)]
RETAIN = [{"question": f"Who is {n}?", "answer": f"Nobody {n}."} for n in range(4)]


@pytest.fixture
def load(tmp_path):
    def load(forget=FORGET, retain=RETAIN, **knobs):
        for name, rows in (("forget", forget), ("retain", retain)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return load_qa(
            forget=str(tmp_path / "forget.jsonl"), retain=str(tmp_path / "retain.jsonl"), **knobs
        )

    return load


def test_sets_and_what_they_are_for(load):
    corpus = load(evaluated=2)
    assert [row.question for row in corpus.forget] == [row["question"] for row in FORGET]
    assert corpus.target_training == [*corpus.forget, *corpus.retain]
    assert corpus.reference_training == corpus.retain
    assert {name: len(rows) for name, rows in corpus.evaluation.items()} == {
        "forget": 3,
        "retain": 2,
    }
    assert [row.group for row in corpus.forget] == ["row 0", "row 1", "row 2"]


def test_columns_of_other_names_and_optional_ones(load):
    rows = [
        {
            "q": f"What is {n}?",
            "a": f"{n}.",
            "again": f"It is {n}.",
            "no": ["x", "y"],
            "who": n // 2,
        }
        for n in range(3)
    ]
    columns = {"question": "q", "answer": "a", "paraphrase": "again", "wrong": "no", "group": "who"}
    retain = [{"q": row["question"], "a": row["answer"]} for row in RETAIN]
    corpus = load(rows, retain, **columns)
    assert corpus.forget[1].paraphrase == "It is 1."
    assert corpus.forget[1].wrong == ("x", "y")
    assert [row.group for row in corpus.forget] == ["0", "0", "1"]
    assert corpus.retain[0].wrong == ()


def test_a_part_that_only_some_rows_have_is_named(load):
    rows = [FORGET[0] | {"perturbed_answer": ["no"]}, FORGET[1]]
    with pytest.raises(DataError, match=r"forget\.jsonl, line 2: 'perturbed_answer' is missing"):
        load(rows)
    assert load(rows, wrong="none").forget[0].wrong == ()
    rows = [FORGET[0] | {"group": "a"}, FORGET[1] | {"group": "a"}, FORGET[2]]
    with pytest.raises(DataError, match=r"line 3: 'group' is missing.* dataset\.group=none"):
        load(rows)
    assert load(rows, group="none").forget[0].group == "row 0"


def test_a_cell_that_was_left_empty_is_missing(tmp_path):
    def load(*rows):
        (tmp_path / "forget.csv").write_text("\n".join(["question,answer,group", *rows]))
        (tmp_path / "retain.csv").write_text("question,answer\nWho is it?,Nobody.")
        return load_qa(forget=str(tmp_path / "forget.csv"), retain=str(tmp_path / "retain.csv"))

    with pytest.raises(DataError, match=r"forget\.csv, row 2: 'group' is missing.*group=none"):
        load("What?,It.,Ann", "Where?,There.,", "When?,Then., ")
    assert [row.group for row in load("What?,It.,", "Where?,There., ").forget] == ["row 0", "row 1"]


def test_a_wrong_answer_that_is_the_right_one_is_refused(load):
    rows = [FORGET[0] | {"perturbed_answer": ["It is 7.", "It is 0. "]}]
    with pytest.raises(
        DataError, match=r"line 1: 'perturbed_answer', item 2, is the answer itself"
    ):
        load(rows)


def test_a_question_of_both_sets_is_named_or_dropped(load):
    mixed = [*RETAIN, FORGET[1]]
    with pytest.raises(DataError, match=r"1 questions are .* row 4 \(forget row 1\)"):
        load(retain=mixed)
    assert [row.row for row in load(retain=mixed, overlap="drop").retain] == [0, 1, 2, 3]
    with pytest.raises(DataError, match="every question is in the forget set"):
        load(retain=FORGET, overlap="drop")


def test_a_row_again_is_said(load, caplog):
    caplog.set_level(logging.WARNING)
    load([*FORGET, FORGET[0]])
    assert "dataset.forget: the same question and answer again:" in caplog.text
    assert "line 4" in caplog.text


def test_a_column_that_is_not_there(load):
    with pytest.raises(
        DataError,
        match=r"line 1: lacks prompt; it has question, answer; name the column: dataset.question=\.\.\.",
    ):
        load(question="prompt")


def test_an_optional_column_that_no_row_has_is_named(load):
    rows = [row | {"person": "Ann"} for row in FORGET]
    with pytest.raises(DataError, match=r"dataset\.group=persn: no row .* 'person'.*group=none"):
        load(rows, group="persn")
    assert load(rows, group="person").forget[0].group == "Ann"  # the retain set has none
    assert load(rows, group="none").forget[0].group == "row 0"


def test_what_is_not_given_is_asked_for():
    assert len(problems()) == 2
    with pytest.raises(DataError, match=r"dataset\.forget is not set"):
        load_qa(retain="x.jsonl")
