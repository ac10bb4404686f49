"""A function the user chose, with its knobs: a loss, an init, a method, an attack, a dataset, a suite."""

import importlib
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loku_exp.errors import UserError

_SHORT = reprlib.Repr()


@dataclass(frozen=True)
class Chosen:
    """A function by its dotted name, with its knobs.

    Attributes:
        name: how results and folders show it.
        target: dotted name of the function.
        inputs: names of what it takes from the program; the knobs are keyword-only.
        knobs: its keyword arguments.
    """

    name: str
    target: str
    inputs: tuple[str, ...]
    knobs: dict[str, Any] = field(default_factory=dict)

    def resolve(self) -> Callable[..., Any]:
        """Return the function itself; this imports its module."""
        module, _, name = self.target.rpartition(".")
        function: Callable[..., Any] = getattr(imported(module), name)
        return function

    def __call__(self, **available: Any) -> Any:
        """Call it with what it takes of what is available, and its knobs."""
        return self.resolve()(**{name: available[name] for name in self.inputs}, **self.knobs)

    def beside(self, name: str) -> Callable[..., Any] | None:
        """Return another function of its module, e.g. ``problems`` or ``flops``, if there is one."""
        module = imported(self.target.rpartition(".")[0])
        return getattr(module, name, None)


def check_returned(target: str, value: Any, kind: Any) -> None:
    """Check what a function returned, which may be a user's own.

    Args:
        target: its dotted name.
        value: what it returned.
        kind: the class it must be of.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, kind):
        raise UserError(
            f"{target} returned {_SHORT.repr(value)}; it must return {kind.__name__}, see {kind.__module__}"
        )


def imported(module: str) -> Any:
    """Return a module by its dotted name.

    Raises:
        UserError: it fails when it is imported; a user's own may in any way.
    """
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"module '{module}' fails when it is imported ({type(error).__name__}: {said}); mend it, or "
            f"try it alone: python -c 'import {module}'"
        ) from error
