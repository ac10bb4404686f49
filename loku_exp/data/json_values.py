"""JSON as other people write it: what the standard forbids or no text can hold is refused by name."""

import json
import math
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loku_exp.data.decoding import read_text
from loku_exp.errors import DataError

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring = 2, 3, 3, 60


def read_json(file: Path, *, finite: bool = True) -> Any:
    """Return the value of a JSON file that is one document; see `parse_json`."""
    return parse_json(read_text(file), file, finite=finite)


def parse_json(text: str, file: Path, line: int | None = None, *, finite: bool = True) -> Any:
    """Return the value of a JSON text.

    Args:
        text: all of it.
        file: where it is from, for messages.
        line: of the file, where the text is that line alone.
        finite: refuse NaN, Infinity, and numbers too large for a float.

    Raises:
        DataError: not JSON, a key twice in one object, half of a surrogate pair or a NUL in a text, or
            such a number.
    """
    place = f"{file}, line {line}" if line else str(file)
    try:
        value = json.loads(text, object_pairs_hook=_object)
        fault = next(_faults(value, finite), None)
    except json.JSONDecodeError as error:
        number = (line or 1) + error.lineno - 1
        whole = "; a line holds one object, or the file one array of objects" if line else ""
        raise DataError(
            f"{file}, line {number}: not JSON ({error.msg}, column {error.colno}){whole}"
        ) from error
    except RecursionError as error:
        raise DataError(f"{place}: lists or objects too deep in each other") from error
    except ValueError as error:  # a key twice, or a number of thousands of digits
        raise DataError(f"{place}: {str(error).split(';')[0]}") from error
    if fault:
        raise DataError(f"{place}: {fault}")
    return value


def shortened(value: Any) -> str:
    """Return a value for a message: on one line, not much of it."""
    return "null" if value is None else _SHORT.repr(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shortened(twice)} is there twice in one object")
    return found


def _faults(value: Any, finite: bool) -> Iterator[str]:
    """Yield what cannot be used in a value, behind the keys and items that lead to it."""
    if isinstance(value, str):
        if "\0" in value:
            yield "holds a NUL character (\\u0000), which no text does; take it out"
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            yield f"holds {half}, half of a surrogate pair and no character; write both halves"
    elif isinstance(value, float):
        if finite and not math.isfinite(value):
            yield f"is {value}, not a finite number"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _faults(key, finite)
            yield from (f"{shortened(key)}: {fault}" for fault in _faults(inner, finite))
    elif isinstance(value, list):
        for number, inner in enumerate(value, 1):
            yield from (f"item {number}: {fault}" for fault in _faults(inner, finite))
