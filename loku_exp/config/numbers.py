"""One number, one way to write it: 5 is 5.0 where a function takes a number with a fraction."""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from loku_exp.config.components import TargetError, read_signature
from loku_exp.errors import UserError


def with_fractions(content: Any) -> Any:
    """Return a component with whole numbers as its knobs are annotated, so that it has one identity.

    Args:
        content: a node with ``_target_``; what is wrong with it is left to other rules.
    """
    if not isinstance(content, dict) or int not in map(type, content.values()):
        return content
    try:
        annotations = {k.name: k.annotation for k in read_signature(content["_target_"]).knobs}
    except (TargetError, UserError, KeyError, AttributeError):
        return content
    return {name: _as(value, annotations.get(name)) for name, value in content.items()}


def _as(value: Any, annotation: Any) -> Any:
    if type(value) is not int or annotation is None:
        return value
    try:
        read = TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return value
    return read if isinstance(read, float) else value
