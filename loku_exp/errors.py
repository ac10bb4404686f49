"""Errors that a user can mend; shown as a message without a traceback, exit code 1."""

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """Something to mend outside the program: the message names it, the rule, and the fix."""

    exit_code = 1


class ConfigError(UserError):
    """A configuration that cannot run: a list of problems, each with name, value, rule and fix."""

    def __init__(self, problems: list[str] | str):
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A dataset that cannot be used: which file and line, what is wrong, and the way out."""


class ModelError(UserError):
    """A model or tokenizer that cannot be loaded or does not fit."""


class TrainingError(UserError):
    """A training that cannot go on, e.g. a loss that is not finite; earlier snapshots are kept."""


class HeldError(UserError):
    """Another process works on the same run; a sweep waits for it."""

    exit_code = 75  # "temporary failure", as of sysexits.h


class StorageError(UserError):
    """A file that cannot be written because there is no room; what was there before is untouched."""

    exit_code = 74  # "input/output error", as of sysexits.h


class Gathered:
    """What several steps find wrong, said together.

    Attributes:
        problems: a line each.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._errors: list[UserError] = []

    def of(self, step: Callable[[], T]) -> T | None:
        """Return what a step returns; None where it raises a `UserError`, which is kept."""
        try:
            return step()
        except UserError as error:
            self.problems += str(error).splitlines()
            self._errors.append(error)
            return None

    def end_if_any(self) -> None:
        """Raise what was found: an error that came alone as it was, others as one.

        Raises:
            UserError: anything was found.
        """
        lines = list(dict.fromkeys(self.problems))
        if self._errors and lines == str(self._errors[0]).splitlines():
            raise self._errors[0]
        if lines:
            raise ConfigError(lines)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest candidate, or an empty string."""
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
