"""Properties of the readers: what is written comes back, and any bytes give rows or a `DataError`."""

import csv
import io
import json
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from loku_exp.data.json_values import parse_json, read_json
from loku_exp.data.tdec_files import read_arrays
from loku_exp.data.text_files import is_blank, read_rows, read_texts
from loku_exp.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | TEXT
SCALARS |= st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
ROWS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=5)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
NEWLINES = st.sampled_from(["\n", "\r\n"])
FOLDER = Path(tempfile.mkdtemp(prefix="readers"))


def read(name, content):
    file = FOLDER / name
    file.write_bytes(content)
    return [row.values for row in read_rows(file)]


@given(ROWS, ENCODINGS, NEWLINES, st.booleans())
def test_json_lines(rows, encoding, newline, ascii_only):
    lines = (json.dumps(row, ensure_ascii=ascii_only) + newline for row in rows)
    assert read("a.jsonl", "".join(lines).encode(encoding)) == rows


@given(ROWS, ENCODINGS, st.sampled_from([None, 1]))
def test_json_arrays(rows, encoding, indent):
    content = json.dumps(rows, ensure_ascii=False, indent=indent)
    assert read("a.json", content.encode(encoding)) == rows


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), min_size=1, max_size=9)


@given(
    st.lists(NAMES, min_size=2, max_size=4, unique=True),
    st.data(),
    ENCODINGS,
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_csv_fields_are_text(columns, data, encoding, quoting):
    fields = st.lists(TEXT, min_size=len(columns), max_size=len(columns))
    table = data.draw(st.lists(fields, min_size=1, max_size=5))
    if quoting == csv.QUOTE_MINIMAL:  # unquoted, a return before the end of a line is part of it
        table = [[field.rstrip("\r") for field in row] for row in table]
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n", quoting=quoting).writerows([columns, *table])
    expected = [dict(zip(columns, row, strict=True)) for row in table]
    assert read("a.csv", stream.getvalue().encode(encoding)) == expected


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=5), ENCODINGS)
def test_csv_of_windows_reads_as_of_anywhere(table, encoding):
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows([["a", "b"], *table])
    content = stream.getvalue().replace("\r", "")
    windows = content.replace("\n", "\r\n")
    assert read("a.csv", windows.encode(encoding)) == read("b.csv", content.encode())


@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(st.integers(0, 9) | st.none(), max_size=4))
def test_parquet(texts, numbers):
    table = pyarrow.table({"text": texts, "numbers": [numbers] * len(texts)})
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, stream)
    expected = [{"text": text, "numbers": numbers} for text in texts]
    assert read("a.parquet", stream.getvalue().to_pybytes()) == expected


PARAGRAPHS = TEXT.filter(lambda text: not is_blank(text) and not set(text) & set("\r\n"))


@given(st.lists(PARAGRAPHS, min_size=1, max_size=5), ENCODINGS, NEWLINES, st.integers(2, 4))
def test_paragraphs(texts, encoding, newline, gap):
    texts[0] = texts[0].lstrip("\ufeff")
    content = (newline * gap).join(texts) + newline
    assert read("a.txt", content.encode(encoding)) == [{"text": text} for text in texts]


# -- any bytes ------------------------------------------------------------------------------------

PIECES = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\r", b"\\", b"text", b'"text"', b"null", b"NaN",
    b"-Infinity", b"1e999", b"\\ud83d", b"\\u0000", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00",
    b"\xed\xa0\xbd", b"\x85", b"\xe2\x80\xa8", b" ", b"\t", b";", b"9" * 20, b"-", b".", b"e",
]  # fmt: skip
JOINED = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=30).map(b"".join)
BYTES = st.binary(max_size=80) | JOINED


@settings(max_examples=400)
@given(BYTES, st.sampled_from(["jsonl", "json", "csv", "parquet", "txt", "npy", ""]))
def test_any_bytes_give_rows_or_a_data_error(content, suffix):
    file = FOLDER / f"any.{suffix}"
    file.write_bytes(content)
    for reader in (read_rows, read_texts, read_json):
        with suppress(DataError):
            rows = reader(file)
            if reader is not read_json:
                assert rows
                json.dumps([row.values for row in read_rows(file)], ensure_ascii=False).encode()


def damaged(whole):
    """Bytes of a file with some of them changed, or its end cut off."""
    changes = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)

    def apply(changes, length):
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        return bytes(content[:length])

    return st.builds(apply, changes, st.integers(0, len(whole)) | st.just(len(whole)))


def parquet_file():
    stream = pyarrow.BufferOutputStream()
    columns = {"text": ["one", "two"], "more": [[1], None], "deep": [{"a": "é"}, {"a": None}]}
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue().to_pybytes()


@settings(max_examples=300)
@given(damaged(parquet_file()))
def test_damaged_parquet_gives_rows_or_a_data_error(content):
    with suppress(DataError):
        read("damaged.parquet", content)


def array_file():
    stream = io.BytesIO()
    np.save(stream, np.arange(200, dtype=np.uint16).reshape(2, 100))
    return stream.getvalue()


@settings(max_examples=500)
@given(damaged(array_file()))
def test_damaged_arrays_give_ids_or_a_data_error(content):
    folder = FOLDER / "lm_extraction_benchmark"
    folder.mkdir(exist_ok=True)
    for name in ("prefix", "suffix"):
        np.save(folder / f"train_{name}.npy", np.zeros((2, 50), int))
    (folder / "train_preprefix.npy").write_bytes(content)
    with suppress(DataError):
        assert read_arrays(FOLDER).shape == (2, 200)


@given(st.integers(1, 5000), st.sampled_from(["[", '{"a":', '[{"a":']))
def test_any_depth(depth, opening):
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening]
    with suppress(DataError):
        parse_json(opening * depth + "1" + closing * depth, FOLDER / "deep.json")
