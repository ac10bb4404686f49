"""What stays the same for a run: its folder, the cache, its seed, and the machine it is on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loku_exp.runtime.cache import Cache
from loku_exp.runtime.machine import Machine


@dataclass(frozen=True)
class Workspace:
    """Where a run works, and on what.

    Attributes:
        folder: of the run; methods and attacks write below it and nowhere else.
        cache: shared by runs.
        seed: of the run; streams are derived from it by name.
        machine: as resolved once.
        tokenizer: the model's.
    """

    folder: Path
    cache: Cache
    seed: int
    machine: Machine
    tokenizer: Any = None

    def store(self, of_run: bool) -> Cache:
        """Return where things are kept: of the run in its folder, what other runs share in the cache."""
        return Cache(self.folder / "kept") if of_run else self.cache
