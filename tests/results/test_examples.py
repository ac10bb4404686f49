"""Rows of examples: one a line whatever is in them, and texts side by side."""

import json
import math

import pytest

from loku_exp.errors import UserError
from loku_exp.results.examples import (
    before_and_after,
    lines_of,
    read_examples,
    shown_texts,
    texts_by_model,
)

STRANGE = [
    "a\u2028b",
    "\u2029",
    "lone \ud800",
    "\udfff\ud800",
    "x\r\ny\x85z",
    "\x00\x1b[1m",
    "😀 я 漢",
]


def row(model="target", number=1, **values):
    return {"model": model, "set": "forget", "row": number, **values}


def test_a_row_is_a_line_and_comes_back(tmp_path):
    rows = [row(number=k, generation=text, question=text) for k, text in enumerate(STRANGE)]
    content = lines_of(rows)
    assert content.isascii()
    assert len(content.split("\n")) == len(content.splitlines()) + 1 == len(rows) + 1
    (tmp_path / "examples.jsonl").write_text(content, encoding="utf-8")
    assert read_examples(tmp_path) == rows


def test_lines_end_at_line_feeds_alone(tmp_path):
    """Also where another program wrote the characters as they are."""
    rows = [
        row(number=k, generation=text) for k, text in enumerate(STRANGE) if "\ud800" not in text
    ]
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (tmp_path / "examples.jsonl").write_bytes(text.encode())
    assert read_examples(tmp_path) == rows


def test_what_is_no_number_is_absent():
    written = json.loads(lines_of([row(prob=math.nan, loss=math.inf, rouge=0.5, text="nan")]))
    assert written == row(rouge=0.5, text="nan")


@pytest.mark.parametrize("value", [[math.nan], {"a": math.inf}, {1, 2}, object()])
def test_what_cannot_be_written_is_named(value):
    with pytest.raises(
        UserError, match=r"row 7 of set 'forget' of the evaluation cannot be written"
    ):
        lines_of([row(), row(number=7, logprobs=value)])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("", "line 2 is not JSON"),
        ("[1]", "line 2: no model, set and row"),
        ('{"model": "a", "set": "b"}', "line 2: no model, set and row"),
        ('{"model": "a", "set": "b", "row": 1, "x": NaN}', "line 2 is not JSON .*NaN"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, said):
    (tmp_path / "examples.jsonl").write_text(lines_of([row()]) + line + "\n" + lines_of([row()]))
    with pytest.raises(UserError, match=said):
        read_examples(tmp_path)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(UserError, match=r"examples\.jsonl cannot be read"):
        read_examples(tmp_path)
    (tmp_path / "examples.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read_examples(tmp_path)


def test_texts_by_row_and_model():
    rows = [row("target", 1, generation="a"), row("unlearned", 1, generation="b"), row("target", 2)]
    rows.append({"model": "target", "set": "retain", "row": 1, "generation": "c"})
    assert texts_by_model(rows, "forget") == {1: {"target": rows[0], "unlearned": rows[1]}}


def pair(number, **values):
    return [row(model, number, **values) for model in ("target", "unlearned", "reference")]


def test_before_and_after():
    rows = [
        r | {"generation": f"of the {r['model']}"}
        for r in pair(4, question="Who?", answer="She.", group="author 1")
    ]
    assert before_and_after(rows) == [
        "forget text 4 (author 1): 'Who?'",
        "  true:   'She.'",
        "  before: 'of the target'",
        "  after:  'of the unlearned'",
    ]


def test_texts_shown_are_whole_and_of_every_model():
    rows = [r | {"generation": f"of the {r['model']}"} for r in pair(4, prompt="x" * 500)]
    (text,) = shown_texts(rows)
    assert text.said == {name: f"of the {name}" for name in ("target", "unlearned", "reference")}
    assert (text.row, text.group, text.truth) == (4, "", "")
    assert shown_texts(rows, "retain") == []


def test_of_a_text_to_extract_the_end_of_the_prompt_is_shown():
    first, *_ = before_and_after(pair(1, prompt="x" * 500 + " the end", generation="on"))
    assert first.startswith("forget text 1: '… xxx")
    assert first.endswith(" the end'")
    assert len(first) < 200


def test_long_texts_are_cut_and_few_are_shown():
    rows = [r for k in range(9) for r in pair(k, question="q", generation="word " * 200)]
    lines = before_and_after(rows)
    assert len(lines) == 3 * 4
    assert max(map(len, lines)) < 250
    assert lines[2].endswith("…")


@pytest.mark.parametrize("text", STRANGE)
def test_no_text_breaks_a_line_or_is_shown_raw(text):
    lines = before_and_after(pair(1, question=text, answer=text, generation=text, group=text))
    assert len(lines) == 4
    for line in lines:
        assert line.isprintable()
        line.encode()


def test_without_an_unlearned_model_nothing_is_shown():
    assert before_and_after([row("target", 1, generation="a")]) == []
