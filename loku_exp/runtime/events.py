"""What a run tells who follows it, as it happens: its beginning, updates, measurements and end.

Stages tell and do not know who listens; trackers listen and are known to no stage. Everything told
is also in the run's folder.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Begun:
    """A run begins, or goes on, in its folder.

    Attributes:
        folder: of the run.
        config: its resolved configuration, as plain data, with its method's name.
        toy: whether data or model are toys.
    """

    folder: Path
    config: dict[str, Any]
    toy: bool


@dataclass(frozen=True)
class Updated:
    """An update of unlearning was made: losses, gradient norm, learning rate, or a stop rule's check."""

    update: int
    values: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """The model after an update was evaluated."""

    update: int
    epoch: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """All files of a run are written."""

    folder: Path


Event = Begun | Updated | Measured | Finished
Follower = Callable[[Event], None]
_followers: list[Follower] = []


def tell(event: Event) -> None:
    """Tell all followers, in the order they came."""
    for follower in _followers:
        follower(event)


@contextmanager
def followed_by(follower: Follower) -> Iterator[None]:
    """Have a follower told of everything that happens inside."""
    _followers.append(follower)
    try:
        yield
    finally:
        _followers.remove(follower)
