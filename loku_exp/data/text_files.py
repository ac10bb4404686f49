"""Read texts from csv, json-lines or plain files, or from the hub; every mistake names file and row."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loku_exp.data.text import Text
from loku_exp.errors import DataError
from loku_exp.runtime.hub import looks_like_a_path

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # whole documents in one field


def read_csv(file: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield the rows of a csv file with quoted line breaks; none of the columns is empty.

    Raises:
        DataError: no such file, a missing column, an empty field, or no rows.
    """
    reader = csv.DictReader(io.StringIO(_content(file, newline=""), newline=""))
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{file} lacks the column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}"
        )
    number = 0
    for number, row in enumerate(reader, start=1):
        for name in columns:
            if not (row[name] or "").strip():
                raise DataError(f"{file}, row {number}: '{name}' is empty")
        yield row
    if not number:
        raise DataError(f"{file} has no rows")


def read_texts(source: str | Path) -> list[Text]:
    """Return the texts of a csv or json-lines file (column ``text``), a txt file (a text a paragraph), or
    a hub dataset ``owner/name`` or ``owner/name:configuration`` (split ``train``).

    Raises:
        DataError: it cannot be read, or a text is missing or empty.
    """  # noqa: D205
    file = Path(source).expanduser()
    if file.suffix == ".csv":
        rows: list[Any] = [row["text"] for row in read_csv(file, ("text",))]
    elif file.suffix in (".jsonl", ".json"):
        rows = list(_json_lines(file))
    elif file.suffix == ".txt":
        rows = [part for part in _content(file).split("\n\n") if part.strip()]
    elif file.exists() or looks_like_a_path(str(source)):
        raise DataError(f"{source} is not a csv, jsonl or txt file")
    else:
        rows = _hub(str(source))
    if not rows:
        raise DataError(f"{source} has no texts")
    return [Text(number, Path(source).stem, text) for number, text in enumerate(rows)]


def _content(file: Path, newline: str | None = None) -> str:
    if not file.is_file():
        raise DataError(f"no file {file}")
    try:
        with file.open(encoding="utf-8-sig", newline=newline) as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error})") from error


def _json_lines(file: Path) -> Iterator[str]:
    lines = _content(file).split("\n")  # not splitlines: texts may hold U+2028
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number}: not a json object with 'text' ({error})"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{file}, line {number}: 'text' is empty")
        yield text


def _hub(name: str) -> list[str]:
    import datasets

    path, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(path, configuration or None, split="train")
    except (OSError, ValueError) as error:  # every hub failure of `datasets` is one of the two
        raise DataError(
            f"cannot load {name} from the hub ({str(error).splitlines()[0]}); without a hub, give a csv, "
            "jsonl or txt file: dataset.retain=FILE"
        ) from error
    if "text" not in loaded.column_names:
        raise DataError(f"{name} has no column 'text'; it has {', '.join(loaded.column_names)}")
    return [text for text in loaded["text"] if text.strip()]
