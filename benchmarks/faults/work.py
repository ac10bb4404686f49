"""What is disturbed: five small works, each a command in a process of its own, and what they leave."""

import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Disturbance(Protocol):
    """What is done to a process that works."""

    def begin(self) -> None:
        """Begin in the process of the work."""

    def note(self) -> None:
        """Note what was seen, where the work ended by itself."""


# The smallest complete run there is: one layer of width 16 on four toy authors, two epochs.
SMALLEST = [
    "experiment=quick", "dataset.num_authors=4", "dataset.num_forget=1", "dataset.num_others=4",
    "model.architecture.hidden_size=16", "model.architecture.num_layers=1",
    "model.architecture.attention_types=[[[global],1]]",
    "model.finetuning.epochs=1", "evaluation.rows=3",
]  # fmt: skip
TWO = ["seed=0,1", "training.epochs=1", "evaluation.curve=none"]
UNLEARNING = ["training.epochs=2", "lora.rank=2"]
NOT_COMPARED = ("run.log", ".lock", "seconds.json", "commit")  # times, and no result
ONLY_TO_RESUME = ("optimizer.state", "rng_state_0.state")  # may go from older snapshots
DAMAGED = re.compile(r"(^|/)damaged-")


@dataclass(frozen=True)
class Work:
    """A command, and what must be there before it.

    Attributes:
        name: for people.
        command: from the place to a program and its arguments.
        after: the works that are done before; what they leave is not disturbed.
        keeps: parts of the cache that are there before; the rest is made by the work.
        again: what the same command may say instead, where it had come to its end.
        runs: how many runs it has, each of which may fail with a line of its own.
    """

    name: str
    command: Callable[[Path], list[str]]
    after: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ("models", "tokenizers", "asked")
    again: str | None = None
    runs: int = 1


def _run(place: Path, *more: str) -> list[str]:
    places = [f"output_dir={place}/out", f"cache_dir={place}/cache"]
    return ["loku_exp", *SMALLEST, *places, *more]


def run_in(place: Path) -> Path:
    """Return the folder of the finished run at a place."""
    return next((place / "out").glob("*/done.json")).parent


WORKS = {
    work.name: work
    for work in (
        Work("bases", lambda place: _run(place, "unlearn=false"), keeps=()),
        Work("run", lambda place: _run(place, *UNLEARNING), after=("bases",)),
        Work("sweep", lambda place: _run(place, *UNLEARNING, *TWO, "-m"), after=("bases",), runs=2),
        Work(
            "attack",
            lambda place: ["loku_exp.attack", str(run_in(place)), "relearn", "attacks.relearn.steps=2"],
            after=("bases", "run"),
            keeps=("",),
        ),
        Work(
            "export",
            lambda place: ["loku_exp.export", str(run_in(place)), "--to", f"{place}/exported"],
            after=("bases", "run"),
            keeps=("",),
            again="there is something already",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: a signal), what it said, and its processor time."""

    code: int
    said: str
    seconds: float


def attempt(
    command: list[str],
    place: Path,
    injection: Disturbance | None = None,
    kill_after: float | None = None,
) -> Ended:
    """Run a command in a fork of this process, whose libraries are imported already.

    Args:
        command: program and arguments.
        place: beside which it says what it has to say.
        injection: what disturbs it.
        kill_after: seconds after which it is sent SIGKILL.
    """
    return wait_for(begin(command, place, injection), kill_after)


@dataclass(frozen=True)
class Child:
    """A process that was begun, and the file of what it says."""

    pid: int
    said: Path


def begin(
    command: list[str], place: Path, injection: Disturbance | None = None, name: str = "said"
) -> Child:
    """Begin a command in a fork of this process; see `attempt`."""
    said = place.with_name(name)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 3
        try:
            sys.stdout = sys.stderr = said.open("w", buffering=1)
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
            code = called(command, injection)
        finally:
            os._exit(code)
    return Child(child, said)


def wait_for(child: Child, kill_after: float | None = None) -> Ended:
    """Wait until a process has ended; end it by SIGKILL after so many seconds."""
    deadline = time.monotonic() + (kill_after or 0.0)
    while kill_after is not None and time.monotonic() < deadline:
        time.sleep(0.002)
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    else:
        if kill_after is not None:
            os.kill(child.pid, signal.SIGKILL)
    _, status, used = os.wait4(child.pid, 0)
    code, said = os.waitstatus_to_exitcode(status), child.said.read_text(errors="replace")
    return Ended(code, said, used.ru_utime + used.ru_stime)


def called(command: list[str], injection: Disturbance | None = None) -> int:
    """Run a command in this process; return its exit code."""
    from loku_exp import __main__, attack
    from loku_exp.export import __main__ as export
    from loku_exp.report import __main__ as report

    programs: dict[str, Callable[[], None]] = {
        "loku_exp": __main__.main, "loku_exp.attack": attack.main, "loku_exp.export": export.main,
        "loku_exp.report": report.main,
    }  # fmt: skip
    sys.argv = list(command)
    if injection is not None:
        injection.begin()
    try:
        programs[command[0]]()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 9
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if injection is not None:
            injection.note()
    return 0


def prepare(work: Work, place: Path) -> None:
    """Make what a work begins from: what comes before it is done, and the rest of the cache is dropped."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in work.after:
        ended = attempt(WORKS[name].command(place), place)
        if ended.code:
            raise SystemExit(f"{name} failed before anything was disturbed:\n{ended.said}")
        if name == "bases":
            shutil.rmtree(place / "out")
            for part in (place / "cache").iterdir():
                if not part.name.startswith(work.keeps):
                    shutil.rmtree(part)


def left(place: Path) -> dict[str, Any]:
    """Return every file at a place with its content, but for times, logs and what was set aside."""
    found = {}
    for file in sorted(path for path in place.rglob("*") if path.is_file() or path.is_symlink()):
        name = str(file.relative_to(place))
        if not name.endswith((*NOT_COMPARED, *ONLY_TO_RESUME)) and not DAMAGED.search(name):
            found[name] = _content(file)
    return found


def _content(file: Path) -> Any:
    try:
        return _comparable(file)
    except ValueError:  # damaged
        return file.read_bytes()


def _comparable(file: Path) -> Any:
    if file.name == "metrics.json":
        return _untimed(json.loads(file.read_text()))
    if file.name == "done.json":
        return sorted(json.loads(file.read_text())["sha256"])  # sums of files that hold times
    if file.name == "answers.jsonl":
        return sorted(file.read_text().splitlines())
    return file.read_bytes()


def _untimed(record: dict[str, Any]) -> dict[str, Any]:
    record["cost"] = record["cost"].get("flops")
    record["run"].pop("started")
    return record


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Yield what is not as in an undisturbed work, a line each."""
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"lost: {name}"
        elif name not in before:
            yield f"half: {name}"
        elif before[name] != after[name]:
            yield f"changed: {name}"
