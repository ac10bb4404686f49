"""Texts come out of files as they are in them, and every mistake names file and row."""

import json
import os

import datasets
import pandas
import pytest

from loku_exp.data.json_values import parse_json, read_json
from loku_exp.data.text_files import Row, is_blank, read_rows, read_texts, require
from loku_exp.errors import DataError
from tests.data.tdec_folder import write_csv

AWKWARD = [
    "plain",
    "two\nlines\n\nand an empty one",
    'he said "no", twice',
    "windows\r\nline and a lone \r return",
    "separators \u2028 \u2029 \x0b \x0c \x85 \x1c within a line",
    "NA",
    "007",
    " leading and trailing ",
    "ünïcödé 漢字 🦊",
    "x" * 200_000,
]
SUFFIXES = ["jsonl", "json", "csv", "parquet", "txt"]


def values(rows):
    return [row.values for row in rows]


def write(file, texts, encoding="utf-8", newline="\n"):
    """The texts in column ``text``, by the file's suffix."""
    if file.suffix == ".parquet":
        pandas.DataFrame({"text": texts}).to_parquet(file)
        return
    if file.suffix == ".csv":
        write_csv(file, ["text"], [[text] for text in texts])
        content = file.read_bytes().decode()
    elif file.suffix == ".txt":
        content = "\n\n".join(texts) + "\n"
    else:
        content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    file.write_bytes(content.replace("\n", newline).encode(encoding))


# -- what is written is what is read --------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_awkward_texts(tmp_path, suffix):
    write(tmp_path / f"a.{suffix}", AWKWARD)
    texts = read_texts(tmp_path / f"a.{suffix}")
    assert [text.text for text in texts] == AWKWARD
    assert [text.row for text in texts] == list(range(len(AWKWARD)))
    assert {text.group for text in texts} == {"a"}
    assert {text.ids for text in texts} == {None}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array(tmp_path, ascii_only, indent):
    rows = [{"id": 1, "text": text, "more": [None, 1.5, {"a": True}]} for text in AWKWARD]
    content = json.dumps(rows, ensure_ascii=ascii_only, indent=indent)
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert values(read_rows(tmp_path / "a.json")) == rows


def test_csv_rows_equal_pandas_on_the_real_files(loku_data):
    files = sorted((loku_data / "tdec/forget_sets").glob("*.csv"))
    assert len(files) == 15
    names = ("pile", "wikitext", "lambada", "pubmed_qa")
    files += [loku_data / f"tdec/validation_data/{name}.csv" for name in names]
    for file in files:
        table = pandas.read_csv(file, lineterminator="\n", dtype=str, keep_default_na=False)
        ours = read_rows(file)
        named = ["" if name.startswith("Unnamed") else name for name in table.columns]
        assert list(ours[0].values) == named, file.name
        assert [list(row.values.values()) for row in ours] == table.values.tolist(), file.name
    texts = read_texts(files[-3])
    assert [text.row for text in texts] == list(range(500))


def test_fields_of_a_csv_file_are_text(tmp_path):
    """As numbers, "007" would lose its zeros and "NA" would be missing; whatever the column holds."""
    (tmp_path / "a.csv").write_text("text,n\n007,1\nNA,\nnull,1e3\nTrue,0x1\n1.50, 2\n")
    rows = read_rows(tmp_path / "a.csv")
    assert [row.text("text") for row in rows] == ["007", "NA", "null", "True", "1.50"]
    assert [row.values["n"] for row in rows] == ["1", "", "1e3", "0x1", " 2"]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]
LINES = ["\n", "\r\n"]


@pytest.mark.parametrize("newline", LINES)
@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt"])
def test_byte_order_marks_and_line_ends_change_nothing(tmp_path, suffix, encoding, newline):
    texts, file = ["Zoë\nsaid: 漢字 🦊", "plain", "a\u2028b\x85c"], tmp_path / f"a.{suffix}"
    write(file, texts, encoding, newline)
    if encoding in ("utf-16-le", "utf-16-be"):
        mark = "\ufeff".encode(encoding)
        file.write_bytes(mark + file.read_bytes())
    assert [text.text for text in read_texts(file)] == texts
    assert list(read_rows(file)[0].values) == ["text"]


def test_a_csv_file_of_windows_has_no_returns_in_its_columns(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text,label\r\n"one\r\ntwo",x\r\nthree,y\r\n')
    expected = [{"text": "one\ntwo", "label": "x"}, {"text": "three", "label": "y"}]
    assert values(read_rows(tmp_path / "a.csv")) == expected


@pytest.mark.parametrize("text", ["a\rb", "\ra", "\r", "a\r\rb", "\ue000\r\ue001"])
def test_a_return_within_a_field_ends_no_row(tmp_path, text):
    """Neither Python's csv nor pandas puts it in quotes, where lines end in LF."""
    pandas.DataFrame({"text": [text, "b"], "n": [1, 2]}).to_csv(tmp_path / "a.csv", index=False)
    assert b'"' not in (tmp_path / "a.csv").read_bytes()
    assert [row.values["text"] for row in read_rows(tmp_path / "a.csv")] == [text, "b"]


def test_lines_that_end_in_a_return_alone(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text,n\rone,1\r"two\rlines",2\r')
    rows = values(read_rows(tmp_path / "a.csv"))
    assert rows == [{"text": "one", "n": "1"}, {"text": "two\nlines", "n": "2"}]


def test_marks_of_joined_files_are_no_text(tmp_path):
    one = '{"text": "a"}\n'.encode("utf-8-sig")
    (tmp_path / "a.jsonl").write_bytes(one + one + b"\xef\xbb\xbf\n")
    assert values(read_rows(tmp_path / "a.jsonl")) == [{"text": "a"}] * 2


def test_a_plain_file_holds_a_text_a_paragraph(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\none\ntwo\n\nthree\r\n\r\n\n\nfour\n\n \n\n\xe2\x80\x8b\n")
    rows = read_rows(file)
    assert [row.text("text") for row in rows] == ["one\ntwo", "three", "four"]
    lines = file.read_text().split("\n")
    for row in rows:
        line = int(row.place.rpartition(" ")[2])
        assert lines[line - 1] == row.text("text").split("\n")[0]


@pytest.mark.parametrize("blank", [" ", "\t", " \t ", "\r"])
def test_a_line_of_blanks_ends_a_paragraph(tmp_path, blank):
    file = tmp_path / "a.txt"
    file.write_bytes(f"one \n  two\n{blank}\n{blank}\nthree\n{blank}".encode())
    rows = read_rows(file)
    assert [row.text("text") for row in rows] == ["one \n  two", "three"]
    assert rows[1].place.endswith(", line 5")


def test_blank_lines_are_no_rows_and_count_as_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"text": "a"}\n \n\u200b\n{"text": "b"}\n\n')
    rows = read_rows(tmp_path / "a.jsonl")
    assert [row.place for row in rows] == [f"{tmp_path}/a.jsonl, line {n}" for n in (2, 5)]
    (tmp_path / "a.csv").write_text("\ntext\n\na\n\nb\n\n")
    rows = read_rows(tmp_path / "a.csv")
    assert [row.place for row in rows] == [f"{tmp_path}/a.csv, row {n}" for n in (1, 2)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffixes_in_capitals(tmp_path, suffix):
    write(tmp_path / f"a.{suffix}", ["one", "two"])
    os.rename(tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix.upper()}")
    assert [text.text for text in read_texts(tmp_path / f"b.{suffix.upper()}")] == ["one", "two"]


def test_nested_columns_of_parquet_are_plain_values(tmp_path):
    rows = [{"a": [1, 2], "b": {"c": ["x"]}, "d": "007", "e": None, "f": 1}]
    pandas.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    (row,) = read_rows(tmp_path / "a.parquet")
    assert row.values == rows[0]
    assert [type(value) for value in row.values["a"]] == [int, int]
    assert row.place.endswith("a.parquet, row 1")


# -- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "txt"])
def test_another_encoding_is_said(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    content = 'text\n{"text": "café"}\n'
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(
        DataError, match=rf"a\.{suffix}, line 2: not UTF-8 \(byte 0xe9 at 18: .*iconv"
    ):
        read_rows(file)
    file.write_bytes(content.encode("utf-32"))
    with pytest.raises(DataError, match=rf"a\.{suffix} is UTF-32; .*iconv -f UTF-32"):
        read_rows(file)
    file.write_bytes(content.encode("utf-16-le"))
    with pytest.raises(
        DataError, match=rf"a\.{suffix}, line 1: holds a NUL byte.*iconv -f UTF-16LE"
    ):
        read_rows(file)
    file.write_bytes(content.encode("utf-16")[:-1])
    with pytest.raises(DataError, match=rf"a\.{suffix}.*not UTF-16 .*truncated"):
        read_rows(file)
    file.write_bytes('{"text": "a\0b"}'.encode("utf-16"))
    with pytest.raises(DataError, match=rf"a\.{suffix} holds a NUL character"):
        read_rows(file)
    file.write_bytes(b"\xed\xa0\xbd")  # half of a surrogate pair, as some programs write it
    with pytest.raises(DataError, match=r"not UTF-8 \(byte 0xed at 0"):
        read_rows(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"/annex/objects/MD5E-s1--0\n", "git-annex pointer.*git annex get"),
        (b"\x1f\x8b\x08\x00", r"compressed \(gzip\)"),
        (b"PK\x03\x04\x14", r"an archive \(zip\)"),
        (b"", "is empty$"),
    ],
)  # fmt: skip
def test_what_lies_there_instead_is_named(tmp_path, suffix, content, said):
    (tmp_path / f"a.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.{suffix} is.*{said}" if content else said):
        read_rows(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_places_without_a_file(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    with pytest.raises(DataError, match=rf"^no file .*a\.{suffix}$"):
        read_texts(file)
    file.mkdir()
    with pytest.raises(DataError, match=rf"a\.{suffix} is a folder, not a file"):
        read_texts(file)
    (tmp_path / f"link.{suffix}").symlink_to("gone")
    with pytest.raises(DataError, match=r"no file .*\(a link to gone, which is not there\)"):
        read_texts(tmp_path / f"link.{suffix}")
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    with pytest.raises(DataError, match="is no regular file"):
        read_texts(tmp_path / f"pipe.{suffix}")
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(DataError, match="cannot read"):
            read_texts(tmp_path / f"{name}.{suffix}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text\n", r"a\.csv has no rows"),
        ("\n\n", r"a\.csv has no rows"),
        ("doc,text\n1,a\n2\n", r"a\.csv, row 2: has 1 of 2 columns \(doc, text\); put fields"),
        ("doc,text\n1,a, b\n", r"a\.csv, row 1: has 3 of 2 columns .*in quotes"),
        ('doc,text\n1,a\n2,"b\n', r"a\.csv, line 3: not csv \(unexpected end of data\)"),
        ('doc,text\n1,"a" b\n', r"a\.csv, line 2: not csv \(',' expected after '\"'\)"),
        ("text,text\na,b\n", r"a\.csv has two columns 'text'"),
        ("doc;text\n1;a\n", r"a\.csv: columns are separated by ';'; save it with commas"),
        ("doc\ttext\n1\ta\n", r"a\.csv: columns are separated by '\\t'"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_said(tmp_path, content, said):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"line 2: not JSON \(.*column 2\); a line holds one object, or the file one array"),
        ('{"text": "a"} {"text": "b"}', r"line 2: not JSON \(Extra data"),
        ('"a"', "line 2: 'a' is not a JSON object"),
        ("[1]", r"line 2: \[1\] is not a JSON object"),
        ("null", "line 2: null is not a JSON object"),
        ('{"text": "a", "text": "b"}', "line 2: the key 'text' is there twice in one object"),
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "line 2: the key 'b' is there twice"),
        ('{"text": "a", "n": NaN}', "line 2: 'n': is nan, not a finite number"),
        ('{"n": [1, -Infinity]}', "line 2: 'n': item 2: is -inf, not a finite"),
        ('{"n": {"m": 1e999}}', "line 2: 'n': 'm': is inf, not a finite"),
        ('{"text": "a\\ud83d"}', r"line 2: 'text': holds \\ud83d, half of a surrogate pair"),
        ('{"text": "\\ude00\\ud83d"}', r"line 2: 'text': holds \\ude00, half of"),
        ('{"a": [{"\\udfff": 1}]}', r"line 2: 'a': item 1: holds \\udfff, half of"),
        ('{"text": "a\\u0000b"}', "line 2: 'text': holds a NUL character"),
        ("[" * 100_000, "lists or objects too deep in each other"),
        ('{"n": ' + "9" * 5000 + "}", "line 2: Exceeds the limit"),
    ],
)
def test_what_is_wrong_with_a_json_line_is_said(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl.*{said}"):
        read_rows(tmp_path / "a.jsonl")


def test_a_whole_pair_of_surrogates_is_a_character(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude00"}')
    assert read_rows(tmp_path / "a.jsonl")[0].text("text") == "😀"


def test_mistakes_in_an_array_name_the_row_or_the_line(tmp_path):
    file = tmp_path / "a.json"
    for content, said in (
        ('[{"text": "a"},\n {"text": }]', r"a\.json, line 2: not JSON \(Expecting value, column 11\)$"),
        ('[{"text": "a"}, 5]', r"a\.json, row 2: 5 is not a JSON object"),
        ('[{"text": "a"}, {"text": NaN}]', r"a\.json: item 2: 'text': is nan"),
        ("[]", r"a\.json has no rows"),
        ("[1, 2", r"a\.json, line 1: not JSON"),
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(DataError, match=said):
            read_rows(file)


def test_a_document_may_allow_numbers_that_are_not_finite(tmp_path):
    (tmp_path / "a.json").write_text('{"a":\n [1, Infinity]}')
    assert read_json(tmp_path / "a.json", finite=False) == {"a": [1, float("inf")]}
    with pytest.raises(DataError, match=r"a\.json: 'a': item 2: is inf"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="the key 'a' is there twice"):
        parse_json('{"a": 1, "a": 1}', tmp_path, finite=False)


@pytest.mark.parametrize(
    "content", [b"PAR1", b"nothing of the kind", b"PAR1" + b"\0" * 40 + b"PAR1"]
)
def test_what_is_not_parquet_is_said(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet is not parquet \("):
        read_rows(tmp_path / "a.parquet")


# -- columns --------------------------------------------------------------------------------------

BLANK = ["", " ", "\n\t ", "\u200b", "\u200c\u200d", "\ufeff", "\u2060", " \u200b \ufeff", "\u00ad",
         "\u3000", "\u2028", "\u3164", "\u115f", "\u2800", "\u200e\u202a", "\ufe0f", "\x07"]  # fmt: skip


@pytest.mark.parametrize("text", BLANK)
def test_texts_of_which_nothing_can_be_seen_are_empty(text):
    assert is_blank(text)
    assert not is_blank(f"{text}a{text}")
    with pytest.raises(DataError, match=r"^f, line 1: 'text' is empty"):
        Row("f, line 1", {"text": text}).text("text")
    with pytest.raises(DataError, match=r"^f, line 1: 'wrong', item 2, is empty"):
        Row("f, line 1", {"wrong": ["a", text]}).texts("wrong")


@pytest.mark.parametrize("text", ["a", ".", "0", "é", "\u0301", "漢", "🦊", "\u200bа", "!"])
def test_texts_of_which_something_can_be_seen(text):
    assert Row("f", {"text": text}).text("text") == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "'text' is null; it must be a text"),
        (7, "'text' is 7; it must be a text"),
        (True, "'text' is True; it must be a text"),
        (["a"], r"'text' is \['a'\]; it must be a text"),
        ({"a": 1}, r"'text' is {'a': 1}; it must be a text"),
        ([["x" * 999] * 999], r"'text' is .{1,200}; it must be a text"),
    ],
)
def test_what_must_be_a_text(value, said):
    with pytest.raises(DataError, match=rf"^f, line 1: {said}$"):
        Row("f, line 1", {"text": value}).text("text")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "'w' is null; it must be a list of texts"),
        ("abc", "'w' is 'abc'; it must be a list of texts"),
        ([], r"'w' is \[\]; it must be a list of texts"),
        (["a", None], "'w', item 2, is null; it must be a text"),
        ([1], "'w', item 1, is 1; it must be a text"),
    ],
)
def test_what_must_be_texts(value, said):
    with pytest.raises(DataError, match=rf"^f, line 1: {said}$"):
        Row("f, line 1", {"w": value}).texts("w")
    with pytest.raises(DataError, match="must be a list of 2 texts or more"):
        Row("f", {"w": ["a"]}).texts("w", 2)


def test_columns_that_are_not_there_are_named():
    rows = [Row("f, line 1", {"a": 1, "b": ""}), Row("f, line 2", {"a": None})]
    require(rows, ["a"][:0])
    require(rows[:1], ["a", "b"])
    with pytest.raises(DataError, match=r"^f, line 2: lacks a, b$"):
        require(rows, ["a", "b"])
    with pytest.raises(DataError, match=r"^f, line 1: lacks text; it has a, b$"):
        rows[0].text("text")
    with pytest.raises(DataError, match=r"^f, line 1: 'w' is missing; it must be a list"):
        rows[0].texts("w")


# -- texts ----------------------------------------------------------------------------------------


def test_other_files_and_folders_are_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("text\n")
    for source in (
        tmp_path / "a.tsv",
        tmp_path,
        "./nothing",
        "/no/where.bin",
        "~/no",
        "/" + "x" * 300,
    ):
        with pytest.raises(DataError, match="is not a csv, json, jsonl, parquet or txt file"):
            read_texts(source)


@pytest.mark.parametrize(
    ("name", "asked"),
    [("owner/name", ("owner/name", None)), ("owner/name:part-1", ("owner/name", "part-1"))],
)
def test_hub_datasets(monkeypatch, name, asked):
    def load_dataset(path, configuration, split):
        assert (path, configuration, split) == (*asked, "train")
        texts = ["one", "  ", "two", "", "\u200b"]
        return datasets.Dataset.from_list([{"text": text} for text in texts])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [(text.row, text.text) for text in read_texts(name)] == [(0, "one"), (1, "two")]


def test_hub_datasets_that_cannot_be_had(monkeypatch):
    rows = datasets.Dataset.from_list([{"line": "one", "n": 1}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    with pytest.raises(DataError, match="owner/name, row 1: lacks text; it has line, n"):
        read_texts("owner/name")
    for blank in ([], [{"text": ""}]):
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, blank=blank, **__: blank)
        with pytest.raises(DataError, match="owner/name has no texts"):
            read_texts("owner/name")
    failures = [
        (ConnectionError("offline\nlong story"), r"\(offline\)"),
        (OSError(), r"\(OSError\)"),
        (RuntimeError("Dataset scripts are no longer supported"), "Dataset scripts"),
        (datasets.exceptions.DatasetGenerationError("broken"), "broken"),
    ]
    for failure, said in failures:

        def unreachable(*_, failure=failure, **__):
            raise failure

        monkeypatch.setattr(datasets, "load_dataset", unreachable)
        with pytest.raises(DataError, match=rf"cannot load owner/name from the hub .*{said}.*FILE"):
            read_texts("owner/name")
