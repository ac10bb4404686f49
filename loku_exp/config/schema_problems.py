"""What pydantic finds wrong with a configuration, in a line a key."""

import re
from typing import Any

from pydantic import ValidationError

from loku_exp.config import components
from loku_exp.config.schema import Config

TYPES_OF_UNIONS = ("bool", "int", "str", "Template")


def schema_problems(error: ValidationError) -> list[str]:
    """Return a line for each key; what several types of one key say is joined."""
    by_key: dict[str, list[Any]] = {}
    for detail in error.errors():
        by_key.setdefault(".".join(_location(detail)), []).append(detail)
    found = []
    for details in by_key.values():
        first = _schema_problem(details[0])
        others = [components.describe(detail).removeprefix("should be ") for detail in details[1:]]
        found.append(" or ".join([first, *others]))
    return found


def _location(detail: Any) -> list[str]:
    """Return the keys that lead to a value, without the names pydantic has for the types of a union."""
    parts = [str(part) for part in detail["loc"]]
    return [
        part for part in parts if not re.search(r"[\[(\-]", part) and part not in TYPES_OF_UNIONS
    ]


def _schema_problem(detail: Any) -> str:
    location = _location(detail)
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key{components.nearest(location[-1], _fields_at(location[:-1]))}"
    if detail["type"] == "missing" and location[-1].isdigit():
        return f"{'.'.join(location[:-1])}: item {int(location[-1]) + 1} is missing"
    if detail["type"] == "missing":
        return f"{key}: not set; add {key}=..."
    value = detail["input"]
    return (
        f"{key}={value if isinstance(value, str) else repr(value)}: {components.describe(detail)}"
    )


def _fields_at(location: list[str]) -> list[str]:
    """Return the valid keys of the section a location leads to."""
    section: Any = Config
    for part in location:
        field = section.model_fields.get(part) if hasattr(section, "model_fields") else None
        section = field.annotation if field else None
    fields = section.model_fields if hasattr(section, "model_fields") else {}
    return [field.alias or name for name, field in fields.items()]
