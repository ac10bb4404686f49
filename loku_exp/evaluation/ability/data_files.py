"""Rows of a data file that a user gives, each with the place it stands in."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from loku_exp.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        place: file and line (or row, where a file has no lines), for messages.
        values: its columns.
    """

    place: str
    values: dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """Read a file: JSON lines, a JSON array, CSV, or parquet, by its suffix.

    Raises:
        DataError: not readable, not a table, or empty; names file and line.
    """
    try:
        if file.suffix == ".csv":
            table = pandas.read_csv(file, lineterminator="\n", keep_default_na=False)
            rows = _numbered(file, table.to_dict("records"))
        elif file.suffix == ".parquet":
            rows = _numbered(file, pandas.read_parquet(file).to_dict("records"))
        else:
            rows = _json_rows(file)
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from error
    if not rows:
        raise DataError(f"{file}: has no rows")
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


def _json_rows(file: Path) -> list[Row]:
    text = file.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        return _numbered(file, json.loads(text))
    rows = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: texts may hold U+2028
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not JSON ({error.msg})") from error
        if not isinstance(values, dict):
            raise DataError(f"{place}: not an object")
        rows.append(Row(place, values))
    return rows


def _numbered(file: Path, records: list[Any]) -> list[Row]:
    rows = []
    for number, record in enumerate(records, 1):
        place = f"{file}, row {number}"
        if not isinstance(record, dict):
            raise DataError(f"{place}: not an object")
        rows.append(Row(place, {str(key): _plain(value) for key, value in record.items()}))
    return rows


def _plain(value: Any) -> Any:
    """Turn numpy's arrays and numbers, which parquet gives, into lists and numbers."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
