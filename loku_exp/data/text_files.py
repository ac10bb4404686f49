"""The reader of all files with text: rows of JSON lines, a JSON array, csv, parquet or plain paragraphs.

Each row knows its place, so that every mistake names file and line. What is read is what stands there:
a csv field is text ("007", "NA"), U+2028 is a letter like any other, and lines may end as Windows has it.
"""

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from loku_exp.data.decoding import read_content, read_text
from loku_exp.data.json_values import parse_json, shortened
from loku_exp.data.text import Text
from loku_exp.errors import DataError
from loku_exp.runtime.hub import looks_like_a_path

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # whole documents in one field

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""Of files with columns."""
VISIBLE = regex.compile(r"[^\s\p{Cc}\p{Cf}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]")


def is_blank(text: str) -> bool:
    """Return whether nothing of a text can be seen: white space, zero-width and control characters."""
    return VISIBLE.search(text) is None


@dataclass(frozen=True)
class Row:
    """One row of a file or of a hub dataset.

    Attributes:
        place: file and line (or row, where a row may span lines), for messages.
        values: its columns.
    """

    place: str
    values: dict[str, Any]

    def text(self, column: str, key: str | None = None) -> str:
        """Return a text of a column, which a key of the configuration names where one is given.

        Raises:
            DataError: the column is absent, not a text, or empty.
        """
        if column not in self.values:
            way_out = f"; name the column: {key}=..." if key else ""
            raise DataError(f"{self.place}: lacks {column}; it has {_named(self.values)}{way_out}")
        return self._text(f"'{column}'", self.values[column])

    def texts(self, column: str, at_least: int = 1) -> tuple[str, ...]:
        """Return a list of texts.

        Raises:
            DataError: the column is absent, no list or too short, or one of it is not a text or empty.
        """
        texts = self.values.get(column)
        if not isinstance(texts, list) or len(texts) < at_least:
            found = f"is {shortened(texts)}" if column in self.values else "is missing"
            rule = f"a list of {at_least} texts or more" if at_least > 1 else "a list of texts"
            raise DataError(f"{self.place}: '{column}' {found}; it must be {rule}")
        return tuple(
            self._text(f"'{column}', item {number},", text) for number, text in enumerate(texts, 1)
        )

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise DataError(f"{self.place}: {name} is {shortened(value)}; it must be a text")
        if is_blank(value):
            seen = ": nothing of it can be seen" if value else ""
            raise DataError(f"{self.place}: {name} is empty{seen}")
        return value


def _named(columns: Iterable[str]) -> str:
    """Return the names of columns for a message: on one line, not much of it."""
    names = [" ".join(name.split()) for name in columns]
    return ", ".join(name if len(name) <= 40 else f"{name[:37]}..." for name in names)


def read_rows(file: Path) -> list[Row]:
    """Read a file by its suffix; one without a known one is read as JSON lines.

    ``.csv`` has a line of column names and commas, ``.txt`` a text a paragraph in column ``text``.

    Raises:
        DataError: it cannot be read, is not of that kind, or has no rows; names file and line.
    """
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows, ".txt": _paragraphs}
    rows = list(readers.get(file.suffix.lower(), _json_rows)(file))
    if not rows:
        raise DataError(f"{file} has no rows")
    return rows


def require(rows: list[Row], keys: Iterable[str]) -> None:
    """Check that every row has all keys.

    Raises:
        DataError: names the first row that has not.
    """
    for row in rows:
        absent = [key for key in keys if row.values.get(key) is None]
        if absent:
            raise DataError(f"{row.place}: lacks {', '.join(absent)}")


def read_texts(source: str | Path, column: str = "text", key: str | None = None) -> list[Text]:
    """Return the texts of a file (a column of it, or the paragraphs of a txt file), or of a hub dataset.

    Args:
        source: see `read_source`.
        column: that holds the texts; of a txt file its paragraphs.
        key: of the configuration that names the column, where there is one.

    Raises:
        DataError: it cannot be read, or a text is missing or empty.
    """
    file = Path(os.path.expanduser(source))
    name = "text" if file.suffix.lower() == ".txt" else column
    rows = read_source(source, name)
    return [Text(number, file.stem, row.text(name, key)) for number, row in enumerate(rows)]


def read_source(source: str | Path, column: str) -> list[Row]:
    """Return the rows of a file, or of a hub dataset.

    Args:
        source: a file, or ``owner/name`` or ``owner/name:configuration`` (split ``train``).
        column: rows of a hub dataset in which it is empty are left out.

    Raises:
        DataError: it cannot be read, or has no rows.
    """
    name, file = str(source), Path(os.path.expanduser(source))
    if file.suffix.lower() in (*SUFFIXES, ".txt"):
        return read_rows(file)
    if os.path.exists(file) or looks_like_a_path(name):
        raise DataError(f"{source} is not a csv, json, jsonl, parquet or txt file")
    path, _, configuration = name.partition(":")
    instead = "give a csv, json, jsonl, parquet or txt FILE in its place"
    found = read_hub(path, configuration or None, instead)
    rows = [row for row in found if not is_blank(str(row.values.get(column, "absent")))]
    if not rows:
        raise DataError(f"{source} has no texts")
    return rows


def read_hub(name: str, configuration: str | None, instead: str) -> Iterator[Row]:
    """Yield the rows of a hub dataset's split ``train``.

    Args:
        name: ``owner/name``.
        configuration: of the dataset.
        instead: what to do without a hub, for the message.

    Raises:
        DataError: it cannot be had.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    place = f"{name}:{configuration}" if configuration else name
    try:
        loaded = datasets.load_dataset(name, configuration, split="train")
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"cannot load {place} from the hub ({reason}); without a hub, {instead}"
        ) from error
    for number, values in enumerate(loaded, 1):
        yield Row(f"{place}, row {number}", dict(values))


def _json_rows(file: Path) -> Iterator[Row]:
    text = read_text(file)
    if text.lstrip().startswith("["):
        for number, values in enumerate(parse_json(text, file), 1):
            yield _object_row(f"{file}, row {number}", values)
        return
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: texts may hold U+2028
        if not is_blank(line):
            values = parse_json(line.lstrip("\ufeff"), file, number)  # marks of joined files
            yield _object_row(f"{file}, line {number}", values)


def _object_row(place: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise DataError(f"{place}: {shortened(values)} is not a JSON object")
    return Row(place, values)


def _csv_rows(file: Path) -> Iterator[Row]:
    text = read_text(file)
    if text.count("\r\n") == text.count("\n"):  # written on Windows: in quoted fields too
        text = text.replace("\r\n", "\n")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    spare = next(mark for mark in map(chr, range(0xE000, 0x110000)) if mark not in text)
    text = regex.sub(
        r"\r(?!\n)", spare, text
    )  # `csv` would end a row there; pandas leaves it unquoted
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = ([field.replace(spare, "\r") for field in fields] for fields in reader if fields)
        columns = next(lines, [])
        _check_columns(file, columns)
        for number, fields in enumerate(lines, 1):
            place = f"{file}, row {number}"
            if len(fields) != len(columns):
                raise DataError(
                    f"{place}: has {len(fields)} of {len(columns)} columns ({_named(columns)}); put "
                    "fields that hold commas or line breaks in quotes"
                )
            yield Row(place, dict(zip(columns, fields, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{file}, line {reader.line_num}: not csv ({error}); fields that hold quotes, commas or line "
            'breaks stand in "quotes", with quotes inside doubled: ""'
        ) from error


def _check_columns(file: Path, columns: list[str]) -> None:
    """Check the names of columns; one without a name (an index) is none.

    Raises:
        DataError: two alike, or another separator than a comma.
    """
    twice = [name for number, name in enumerate(columns) if name and name in columns[:number]]
    if twice:
        raise DataError(f"{file} has two columns '{twice[0]}'; rename or remove one")
    other = next((mark for mark in ";\t|" if len(columns) == 1 and mark in columns[0]), None)
    if other:
        raise DataError(f"{file}: columns are separated by {other!r}; save it with commas")


def _parquet_rows(file: Path) -> Iterator[Row]:
    content = read_content(file)
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        table = ParquetFile(pyarrow.BufferReader(content)).read()
        _check_columns(file, table.column_names)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is not parquet ({str(error).splitlines()[0]})") from error
    for number, values in enumerate(rows, 1):
        yield Row(f"{file}, row {number}", values)


def _paragraphs(file: Path) -> Iterator[Row]:
    text = read_text(file).replace("\r\n", "\n").replace("\r", "\n")
    text, line = regex.sub(r"(?m)^[ \t]+$", "", text), 1  # a line of blanks looks empty, and is
    for part in text.split("\n\n"):
        begin = line + len(part) - len(part.lstrip("\n"))
        if not is_blank(part):
            yield Row(f"{file}, line {begin}", {"text": part.strip("\n")})
        line += part.count("\n") + 2
