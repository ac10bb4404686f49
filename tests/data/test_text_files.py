"""Texts come out of files as they are in them, and every mistake names file and row."""

import json

import datasets
import pandas
import pytest

from loku_exp.data.text_files import read_csv, read_texts
from loku_exp.errors import DataError
from tests.data.tdec_folder import write_csv

AWKWARD = [
    "plain",
    "two\nlines\n\nand an empty one",
    'he said "no", twice',
    "windows\r\nline and a lone \r return",
    "separators \u2028 \u2029 \x0b \x0c \x85 \x1c within a line",
    "NA",
    " leading and trailing ",
    "ünïcödé 漢字 🦊",
    "x" * 200_000,
]


def test_csv_rows_are_the_written_ones(tmp_path):
    write_csv(tmp_path / "a.csv", ["n", "text"], enumerate(AWKWARD))
    rows = list(read_csv(tmp_path / "a.csv", ("n", "text")))
    assert rows == [{"n": str(n), "text": text} for n, text in enumerate(AWKWARD)]


def test_csv_rows_equal_pandas_on_the_real_files(loku_data):
    sets = sorted((loku_data / "tdec/forget_sets").glob("*.csv"))
    assert len(sets) == 15
    validation = [loku_data / f"tdec/validation_data/{name}.csv" for name in ("pile", "wikitext")]
    for file in [*sets, *validation]:
        table = pandas.read_csv(file, lineterminator="\n", dtype=str, keep_default_na=False)
        named = [name for name in table.columns if not name.startswith("Unnamed")]
        ours = [{name: row[name] for name in named} for row in read_csv(file, tuple(named))]
        assert ours == table[named].to_dict("records"), file.name
    wikitext = pandas.read_csv(validation[1], lineterminator="\n", keep_default_na=False)
    texts = read_texts(validation[1])
    assert [text.text for text in texts] == list(wikitext["text"])
    assert [text.row for text in texts] == list(range(500))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("doc,text\n1,a\n", r"a\.csv lacks the column doc_id; it has doc, text"),
        ("", r"a\.csv lacks the column doc_id, text; it has $"),
        ("doc_id,text\n", r"a\.csv has no rows"),
        ("doc_id,text\n1,a\n2,\n", r"a\.csv, row 2: 'text' is empty"),
        ('doc_id,text\n1,"a\n\nb"\n2," \n "\n', r"a\.csv, row 2: 'text' is empty"),
        ("doc_id,text\n1\n", r"a\.csv, row 1: 'text' is empty"),
        ("doc_id,text\n,a\n", r"a\.csv, row 1: 'doc_id' is empty"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_said(tmp_path, content, said):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        list(read_csv(tmp_path / "a.csv", ("doc_id", "text")))


def test_no_such_file(tmp_path):
    for name in ("a.csv", "a.jsonl", "a.txt"):
        with pytest.raises(DataError, match=rf"no file .*{name}"):
            read_texts(tmp_path / name)


def test_a_table_as_spreadsheets_save_it(tmp_path):
    """With a byte-order mark before the first column's name."""
    (tmp_path / "a.csv").write_text("text,n\none,1\n", encoding="utf-8-sig")
    assert [text.text for text in read_texts(tmp_path / "a.csv")] == ["one"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_another_encoding_is_said(tmp_path, name):
    (tmp_path / name).write_bytes('text\n{"text": "café"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=rf"{name}.*not UTF-8"):
        read_texts(tmp_path / name)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_json_lines(tmp_path, suffix, ascii_only):
    lines = [json.dumps({"id": 1, "text": t}, ensure_ascii=ascii_only) for t in AWKWARD]
    (tmp_path / f"a.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = read_texts(tmp_path / f"a.{suffix}")
    assert [text.text for text in texts] == AWKWARD
    assert [text.row for text in texts] == list(range(len(AWKWARD)))
    assert {text.group for text in texts} == {"a"}
    assert {text.ids for text in texts} == {None}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not a json object with 'text'"),
        ('{"txt": "a"}', "not a json object with 'text'"),
        ('"a"', "not a json object with 'text'"),
        ("[1]", "not a json object with 'text'"),
        ('{"text": " \\n"}', "'text' is empty"),
        ('{"text": null}', "'text' is empty"),
        ('{"text": 5}', "'text' is empty"),
    ],
)
def test_what_is_wrong_with_a_json_line_is_said(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2: {said}"):
        read_texts(tmp_path / "a.jsonl")


def test_a_plain_file_holds_a_text_a_paragraph(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\nthree\r\n\r\nfour\n\n \n\n")
    assert [text.text for text in read_texts(tmp_path / "a.txt")] == ["one\ntwo", "three", "four"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_without_texts(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=rf"{name} has no texts"):
        read_texts(tmp_path / name)


def test_other_files_and_folders_are_refused(tmp_path):
    (tmp_path / "a.parquet").write_text("")
    for source in (tmp_path / "a.parquet", tmp_path, "./nothing", "/no/where.bin", "~/no"):
        with pytest.raises(DataError, match="is not a csv, jsonl or txt file"):
            read_texts(source)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("owner/name", ("owner/name", None)), ("owner/name:part-1", ("owner/name", "part-1"))],
)
def test_hub_datasets(monkeypatch, name, asked):
    def load_dataset(path, configuration, split):
        assert (path, configuration, split) == (*asked, "train")
        return datasets.Dataset.from_list([{"text": "one"}, {"text": "  "}, {"text": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [(text.row, text.text) for text in read_texts(name)] == [(0, "one"), (1, "two")]


def test_hub_datasets_that_cannot_be_had(monkeypatch):
    rows = datasets.Dataset.from_list([{"line": "one", "n": 1}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    with pytest.raises(DataError, match="owner/name has no column 'text'; it has line, n"):
        read_texts("owner/name")

    def unreachable(*_, **__):
        raise ConnectionError("offline\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"cannot load owner/name from the hub \(offline\);.*FILE"):
        read_texts("owner/name")
