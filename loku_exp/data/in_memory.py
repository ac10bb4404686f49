"""Texts and rows that a notebook holds: lists, generators, arrays, Series, DataFrames."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loku_exp.errors import DataError
from loku_exp.runtime.cache import digest
from loku_exp.runtime.whole_files import write_text


def listed(name: str, given: Any) -> list[Any]:
    """Return texts or rows as a list.

    Raises:
        DataError: there are none, or they are neither texts nor rows.
    """
    rule = f"{name}: should be texts, or rows with question and answer"
    if isinstance(given, str | dict) or not isinstance(given, Iterable):
        raise DataError(f"{rule}, as a list; it is {type(given).__name__}")
    rows = (
        given.to_dict("records")
        if hasattr(given, "to_dict") and hasattr(given, "columns")
        else [*given]
    )
    rows = [_plain(row) for row in rows]
    for number, row in enumerate(rows):
        if not isinstance(row, str | dict) or isinstance(row, dict) != isinstance(rows[0], dict):
            raise DataError(f"{rule}; item {number} is {type(row).__name__}")
        values = row.values() if isinstance(row, dict) else ()
        if any(isinstance(value, float) and value != value for value in values):
            raise DataError(f"{rule}; item {number} has a value that is missing (NaN)")
    if not rows:
        raise DataError(f"{rule}; there are none")
    return rows


def _plain(value: Any) -> Any:
    """Return numpy's arrays and numbers, which a DataFrame's cells may be, as lists and Python's own."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def write_rows(rows: list[Any], place: Path) -> Path:
    """Write texts or rows as JSON lines into a file named by its content.

    Raises:
        DataError: a row holds what JSON has not.
    """
    plain = [row if isinstance(row, dict) else {"text": row} for row in rows]
    try:
        name, content = digest(plain, 16), "".join(json.dumps(row) + "\n" for row in plain)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"rows of a notebook must hold texts, numbers and lists, by names that are texts ({error}); "
            "leave the other columns out"
        ) from error
    file = place / "texts" / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, content)
    return file.resolve()
