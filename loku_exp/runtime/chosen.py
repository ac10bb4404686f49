"""A function the user chose, with its knobs: a loss, an init, a method, an attack, a dataset, a suite."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


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
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function

    def __call__(self, **available: Any) -> Any:
        """Call it with what it takes of what is available, and its knobs."""
        return self.resolve()(**{name: available[name] for name in self.inputs}, **self.knobs)

    def beside(self, name: str) -> Callable[..., Any] | None:
        """Return another function of its module, e.g. ``problems`` or ``flops``, if there is one."""
        module = importlib.import_module(self.target.rpartition(".")[0])
        return getattr(module, name, None)
