"""A work with what it leaves undisturbed, and trials of it: disturbed, then asked for again."""

import gc
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.faults.injection import Injection
from benchmarks.faults.work import (
    WORKS,
    Disturbance,
    Ended,
    Work,
    attempt,
    called,
    differences,
    left,
    prepare,
)

Trouble = tuple[str, str]
"""What was done, and what was wrong afterwards."""


@dataclass(frozen=True)
class Bench:
    """A work that can be begun again and again at one place.

    Attributes:
        work: the command.
        place: where it works; always the same path, as places are part of what it leaves.
        template: what `place` holds before it.
        whole: what it leaves where nothing disturbs it.
        operations: its file operations, in order.
    """

    work: Work
    place: Path
    template: Path
    whole: dict[str, Any]
    operations: list[str]

    @classmethod
    def of(cls, work: Work, root: Path) -> "Bench":
        """Prepare a work, and do it once undisturbed."""
        place, template = root / "place", root / work.name
        prepare(work, place)
        place.rename(template)
        bench = cls(work, place, template, {}, [])
        bench.renew()
        listed = root / "operations"
        ended = bench.disturbed(Injection(place, listed=listed))
        if ended.code:
            raise SystemExit(f"{work.name} fails undisturbed:\n{ended.said}")
        operations = listed.read_text().splitlines()
        print(f"{work.name}: {len(operations)} file operations, {ended.seconds:.1f} s", flush=True)
        return cls(work, place, template, left(place), operations)

    def renew(self) -> None:
        """Put what is there before the work."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.template, self.place, symlinks=True)

    def disturbed(self, injection: Disturbance | None = None) -> Ended:
        """Run the work's command once."""
        return attempt(self.command, self.place, injection)

    @property
    def command(self) -> list[str]:
        """The work's command."""
        return self.work.command(self.place)

    def troubles(self, what: str) -> list[Trouble]:
        """Run the same command again; return what is then not as if nothing had been."""
        ended = self.disturbed()
        complete = self.work.again is not None and self.work.again in ended.said
        if ended.code and not complete:
            return [(what, f"lost: exit code {ended.code}: {ended.said[-300:]}")]
        return [(what, line) for line in differences(self.whole, left(self.place))]


def warm(root: Path) -> None:
    """Import what the works need by doing each once in this process, whose forks then begin at once."""
    import torch

    from loku_exp.stages import bases

    torch.set_num_threads(1)
    bases._make_side_by_side = lambda *_: None  # one process, so that operations have an order
    place = root / "warm"
    place.mkdir(parents=True)
    for work in WORKS.values():
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            code = called(work.command(place))
        if code:
            raise SystemExit(f"{work.name} fails undisturbed")
    shutil.rmtree(place)
    gc.collect()
    gc.freeze()


Report = Callable[[str, int, list[Trouble]], None]
"""Takes what was tried, how often, and what was wrong."""
