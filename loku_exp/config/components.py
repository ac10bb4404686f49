"""Check the knobs of a `_target_` against its function's signature, without importing it.

A loss or a suite imports torch and friends, seconds of work; a typo should not cost that. So the
signature is read from the source. Only where the source does not define the function (it is
re-exported, decorated, or compiled) the module is imported.
"""

import ast
import builtins
import importlib
import importlib.util
import inspect
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from loku_exp.errors import UserError, nearest
from loku_exp.runtime import knobs
from loku_exp.runtime.chosen import imported


@dataclass(frozen=True)
class Knob:
    """A keyword-only parameter of a component, set in the configuration."""

    name: str
    annotation: Any
    required: bool


@dataclass(frozen=True)
class Signature:
    """What a component takes: positional inputs from the program, knobs from the configuration."""

    inputs: tuple[str, ...]
    knobs: tuple[Knob, ...]
    takes_any_knob: bool
    with_default: tuple[str, ...] = ()  # of the inputs: most likely meant as knobs


TYPES = {  # by the beginning of pydantic's name of an error
    "int": "should be a whole number (for example 1)",
    "float": "should be a number (for example 0.1)",
    "bool": "should be true or false",
    "string_type": "should be text",
    "list_type": "should be a list (for example [a,b])",
    "tuple_type": "should be a list (for example [a,b])",
    "dict_type": "should be a section of keys",
    "model": "should be a section of keys",
}


class TargetError(ValueError):
    """A `_target_` that names no function."""


def read_signature(target: str) -> Signature:
    """Return the signature of a dotted function name.

    Raises:
        TargetError: there is no such module or function; the message names a near one.
    """
    module_name, _, function_name = target.rpartition(".")
    source = _source(module_name, target)
    for node in source.body:
        if isinstance(node, ast.FunctionDef) and node.name == function_name:
            if node.decorator_list:
                break
            return _from_source(node, _aliases(source))
    return _from_function(_import(module_name, function_name))


def signature_problems(
    section: str, target: str, values: dict[str, Any], given: tuple[str, ...], named: bool = False
) -> list[str]:
    """Return what is wrong with the inputs and knobs of one component, one line each.

    Args:
        section: where it stands in the configuration, e.g. ``loss``.
        target: its dotted function name.
        values: the knobs set in the configuration.
        given: inputs the program can give it, the first of which it must take.
        named: whether there may be more of them, which are known by name once the data is loaded.
    """
    try:
        signature = read_signature(target)
    except (TargetError, UserError) as error:
        return [f"{section}._target_={target}: {error}"]
    known = {knob.name: knob for knob in signature.knobs}
    found = _input_problems(section, target, signature, given, named)
    for name, value in values.items():
        if name in known:
            found += _type_problems(f"{section}.{name}", value, known[name].annotation)
        elif not signature.takes_any_knob:
            hint = nearest(name, known) or f"; it has {', '.join(known) or 'none'}"
            hint += f"; to remove it: ~{section}.{name}"
            found.append(f"{section}.{name}: {target} has no such knob{hint}")
    found += [
        f"{section}.{knob.name}: {target} needs it; add {section}.{knob.name}=..."
        for knob in signature.knobs
        if knob.required and knob.name not in values
    ]
    return found


def _input_problems(
    section: str, target: str, signature: Signature, given: tuple[str, ...], named: bool
) -> list[str]:
    more = " and further batches of the dataset" if named else ""
    found = [
        f"{section}._target_={target}: nothing is given for its argument '{name}'; a {section} may take "
        f"{' and '.join(given) or 'nothing'}{more}, and knobs must be keyword-only (behind a *)"
        for name in signature.inputs
        if name not in given and (name in signature.with_default or not named)
    ]
    if given and given[0] not in signature.inputs:
        found.append(f"{section}._target_={target}: a {section} must take '{given[0]}'")
    return found


def describe(detail: Any) -> str:
    """Return one error of pydantic as a rule in words, e.g. ``should be greater than 0``."""
    if detail["type"] == "string_pattern_mismatch":
        name = "A-Za-z0-9" in str(detail["ctx"]["pattern"])
        return (
            "should be letters, digits, '.', '_' and '-', at most 64, for it names a folder"
            if name
            else "should be a path in one line"
        )
    if detail["type"] == "string_too_short":
        return "should not be empty"
    if detail["type"] == "too_short":
        return f"should have at least {detail['ctx']['min_length']} item"
    if detail["type"] == "too_long":
        return f"should have at most {detail['ctx']['max_length']} items"
    for beginning, words in TYPES.items():
        if detail["type"].startswith(beginning):
            return words
    return str(detail["msg"]).removeprefix("Input ").removeprefix("Value error, ")


def _type_problems(key: str, value: object, annotation: Any) -> list[str]:
    if any(isinstance(x, float) and not math.isfinite(x) for x in _leaves(value)):
        return [f"{key}={value!r}: should be a finite number"]
    if annotation is None:
        return []
    own = knobs.Real if annotation is float else knobs.Whole if annotation is int else annotation
    try:
        TypeAdapter(own).validate_python(value)
    except ValidationError as error:
        return [f"{key}={value!r}: {describe(error.errors()[0])}"]
    return []


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _source(module_name: str, target: str) -> ast.Module:
    if not module_name:
        raise TargetError(f"'{target}' is not a dotted name like mypackage.my_function")
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise TargetError(f"cannot find module '{module_name}' ({error})") from error
    if spec is None:
        raise TargetError(f"cannot find module '{module_name}'; is it installed, or on PYTHONPATH?")
    if not spec.origin or not spec.origin.endswith(".py"):
        return ast.Module([], [])
    try:
        return ast.parse(Path(spec.origin).read_bytes(), spec.origin)
    except (SyntaxError, ValueError, OSError) as error:  # ValueError: a null byte
        raise TargetError(f"{spec.origin} is no Python that can be read ({error})") from error


def _aliases(source: ast.Module) -> dict[str, Any]:
    """Return the types that a module gives names, e.g. ``Kind = Literal["a", "b"]``."""
    found: dict[str, Any] = {}
    for node in source.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            value = _evaluate(node.value, {})
            found |= {
                target.id: value
                for target in node.targets
                if isinstance(target, ast.Name) and value
            }
    return found


def _from_source(node: ast.FunctionDef, aliases: dict[str, Any]) -> Signature:
    arguments = node.args
    inputs = tuple(argument.arg for argument in arguments.posonlyargs + arguments.args)
    return Signature(
        inputs=inputs,
        knobs=tuple(
            Knob(argument.arg, _evaluate(argument.annotation, aliases), default is None)
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        ),
        takes_any_knob=arguments.kwarg is not None,
        with_default=inputs[len(inputs) - len(arguments.defaults) :],
    )


def _evaluate(annotation: ast.expr | None, aliases: dict[str, Any]) -> Any:
    """Return the type an annotation names, or None where it is not one of ours or of typing's."""
    names = vars(builtins) | vars(typing) | vars(knobs) | aliases
    try:
        return eval(ast.unparse(annotation), {}, names) if annotation else None
    except (NameError, AttributeError, TypeError):
        return None


def _import(module_name: str, function_name: str) -> Any:
    module = imported(module_name)
    function = getattr(module, function_name, None)
    if callable(function):
        return function
    if function is not None:
        raise TargetError(f"'{function_name}' of module '{module_name}' is no function")
    public = [name for name in vars(module) if not name.startswith("_")]
    hint = nearest(function_name, public)
    raise TargetError(f"module '{module_name}' has no function '{function_name}'{hint}")


def _from_function(function: Any) -> Signature:
    parameters = inspect.signature(function).parameters.values()
    inputs = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return Signature(
        inputs=tuple(p.name for p in inputs),
        knobs=tuple(
            Knob(
                p.name,
                p.annotation if isinstance(p.annotation, type) else None,
                p.default is p.empty,
            )
            for p in parameters
            if p.kind == p.KEYWORD_ONLY
        ),
        takes_any_knob=any(p.kind == p.VAR_KEYWORD for p in parameters),
        with_default=tuple(p.name for p in inputs if p.default is not p.empty),
    )
