"""Do the tests notice a changed formula? One small change of the code at a time, and the tests of its room.

Usage:
    python -m benchmarks.mutation [ROOM ...]     rooms: losses fisher inits metrics judge; all of them

So many are drawn: MUTANTS=200 (MUTANTS=all: each), with SEED=0, and tried one a core at a time. A mutant is
killed where a test of its room fails, those that name the changed file first, or where they take over
three times as long as on the plain code, which must pass. Exit code 1 where fewer than 80 % are killed
(KILLED=.8).
"""

import ast
import gc
import importlib
import importlib.machinery
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "loku_exp", ROOT / "tests"
SUITES = [PACKAGE / "evaluation" / name for name in ("tofu", "tdec")]
BESIDE = {"fisher": ["tests/models/test_calls.py"]}  # a room's tests that stand in another
ROOMS: dict[str, tuple[list[Path], list[str]]] = {
    **{
        n: (sorted((PACKAGE / n).glob("*.py")), [f"tests/{n}", *BESIDE.get(n, [])])
        for n in ("losses", "fisher", "inits")
    },
    **{
        n: ([s / f"{n}.py" for s in SUITES], [f"tests/evaluation/{s.name}/test_{n}.py" for s in SUITES])
        for n in ("metrics", "judge")
    },
}  # fmt: skip
TIMES, SPARE = 3, 30  # what the plain code takes, and seconds more
DEMANDED = 0.8


def in_order(room: str, file: Path) -> list[Path]:
    """Return a room's test files: the one of this file's name first, then those that name it."""
    places = [ROOT / place for place in ROOMS[room][1]]
    found = [f for p in places for f in (sorted(p.rglob("test_*.py")) if p.is_dir() else [p])]

    def distance(test: Path) -> int:
        if test.stem == f"test_{file.stem}" and test.parent.name == file.parent.name:
            return 0
        return 1 if f"{file.parent.name}.{file.stem} " in test.read_text(encoding="utf-8") else 2

    return sorted(found, key=distance)


class Trial(NamedTuple):
    """How a room's tests ended: 0 where they passed, ``-signal.SIGALRM`` where they took too long."""

    mutant: Mutant
    code: int
    seconds: float


def trials(
    mutants: Iterable[Mutant],
    limits: dict[str, int],
    libraries: Path | None = None,
    *,
    jobs: int = 1,
) -> Iterator[Trial]:
    """Yield how the tests of each mutant's room end, in a fork that imports the changed code.

    Args:
        mutants: the changed code.
        limits: seconds after which a room's tests are stopped; 0: never.
        libraries: where to write which libraries they imported.
        jobs: forks at a time.
    """
    waiting, running = iter(mutants), dict[int, tuple[Mutant, float]]()
    while True:
        for mutant in islice(waiting, jobs - len(running)):
            running[_forked(mutant, limits[mutant.room], libraries)] = mutant, time.monotonic()
        if not running:
            return
        child, status = os.wait()
        mutant, start = running.pop(child)
        yield Trial(mutant, os.waitstatus_to_exitcode(status), time.monotonic() - start)


def _forked(mutant: Mutant, limit: int, libraries: Path | None) -> int:
    child = os.fork()
    if child == 0:
        code = _tested(mutant, limit)
        if libraries:
            libraries.write_text("\n".join(_imported()), encoding="utf-8")
        os._exit(code)
    return child


def _imported() -> list[str]:
    """Return the libraries imported so far, in order; not our code, of which a mutant may be part."""
    places = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return [name for name, place in places.items() if place and "site-packages" in place]


def _plain_seconds(rooms: list[str]) -> dict[str, float]:
    """Return how long each room's tests take on the plain code, in a fork like a mutant's.

    What they import is imported here before, once for all forks.

    Raises:
        SystemExit: they do not pass, so that they would tell nothing.
    """
    files = [ROOMS[room][0][0] for room in rooms]
    plain = [
        Mutant(r, f, 0, "", ast.parse(f.read_bytes())) for r, f in zip(rooms, files, strict=True)
    ]
    unlimited = dict.fromkeys(rooms, 0)
    with tempfile.TemporaryDirectory() as folder:
        libraries = Path(folder) / "libraries"
        for _ in trials(plain, unlimited, libraries):
            for name in libraries.read_text(encoding="utf-8").split():
                importlib.import_module(name)
    gc.freeze()
    seconds = {}
    for mutant, code, took in trials(plain, unlimited):
        seconds[mutant.room] = took
        if code:
            raise SystemExit(
                f"the tests of {mutant.room} do not pass on the plain code: exit code {code}"
            )
    return seconds


def _tested(mutant: Mutant, limit: int) -> int:
    import pytest

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # transformers takes it, and never gives it back
    signal.alarm(limit)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    loader: Any = importlib.machinery.SourceFileLoader
    plain = loader.get_code

    def get_code(self: Any, name: str) -> Any:
        if Path(self.path) == mutant.file:
            return compile(ast.fix_missing_locations(mutant.tree), self.path, "exec")
        return plain(self, name)

    loader.get_code = get_code
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow"]
    return int(pytest.main([*options, *map(str, in_order(mutant.room, mutant.file))]))


def drawn(every: list[Mutant], number: str, seed: int) -> list[Mutant]:
    """Return so many mutants, or ``all``, in an order of the seed."""
    size = len(every) if number == "all" else min(int(number), len(every))
    return random.Random(seed).sample(every, size)


def main(rooms: list[str]) -> int:
    """Try mutants; return the exit code."""
    import lm_eval.api.task, peft, scipy.stats, torch, transformers  # noqa: E401, F401, I001  # once for all forks

    torch.set_num_threads(1)
    every = [
        m for room in rooms or ROOMS for file in ROOMS[room][0] for m in mutants_of(room, file)
    ]
    seed = os.environ.get("SEED", "0")
    chosen = drawn(every, os.environ.get("MUTANTS", "200"), int(seed))
    demanded = float(os.environ.get("KILLED", DEMANDED))
    seconds = _plain_seconds(sorted({mutant.room for mutant in chosen}))
    print("seconds on the plain code:", {k: round(v) for k, v in seconds.items()}, flush=True)
    limits = {room: round(TIMES * took) + SPARE for room, took in seconds.items()}
    survivors = late = 0
    jobs = len(os.sched_getaffinity(0))
    for count, (mutant, code, took) in enumerate(trials(chosen, limits, jobs=jobs), 1):
        survivors += code == 0
        late += code == -signal.SIGALRM
        said = {0: "SURVIVES", -signal.SIGALRM: "too slow"}.get(code, "killed")
        place = f"{mutant.file.relative_to(ROOT)}:{mutant.line}"
        print(
            f"{said} ({count} of {len(chosen)}, {took:.0f} s): {place}: {mutant.change}", flush=True
        )
    rate = 1 - survivors / len(chosen)
    print(
        f"{len(chosen)} of {len(every)} mutants, seed {seed}: {rate:.0%} killed ({late} by the limit of "
        f"time), {demanded:.0%} demanded"
    )
    return int(rate < demanded)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
