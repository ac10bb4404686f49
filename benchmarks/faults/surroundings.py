"""A disk that is full or read-only, two processes at once, a clock that goes backwards."""

import time

from benchmarks.faults.bench import Bench, Report, Trouble
from benchmarks.faults.injection import NEED_NO_ROOM, ClockBackwards, Injection
from benchmarks.faults.work import begin, wait_for

HELD = 75  # exit code where another process works on the run
FULL = 74  # exit code where there is no room; a sweep's is 1, whatever its runs failed of
MOMENTS = 4  # at which the second of two processes begins


def no_room(bench: Bench, share: float, report: Report) -> None:
    """Let nothing be written from some operation on; each run names the place in a line; nothing is half.

    Args:
        bench: of the work.
        share: of the operations.
        report: told once a kind.
    """
    need = [not operation.startswith(NEED_NO_ROOM) for operation in bench.operations]
    last = len(need) - need[::-1].index(True)  # later nothing fails, and the work ends well
    for order, how in enumerate(("full", "read-only")):
        numbers = range(1 + order, last + 1, max(1, round(1 / share)))
        troubles: list[Trouble] = []
        for number in numbers:
            what = f"{how} from {number} on, {bench.operations[number - 1]}"
            bench.renew()
            ended = bench.disturbed(Injection(bench.place, number, how))
            lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
            named = [line for line in lines if str(bench.place) in line]
            code = FULL if how == "full" and bench.work.runs == 1 else 1
            if ended.code != code or named != lines or not 1 <= len(lines) <= bench.work.runs:
                troubles.append((what, f"exit code {ended.code}, it said {ended.said[-300:]!r}"))
            troubles += bench.troubles(what)
        report(f"{bench.work.name}: {how} disk", len(numbers), troubles)


def two_at_once(bench: Bench, report: Report) -> None:
    """Begin the same command twice; both end well, or one says that the other has it."""
    troubles: list[Trouble] = []
    for moment in range(MOMENTS):
        bench.renew()
        first = begin(bench.command, bench.place, name="said")
        time.sleep(moment * 0.4)
        second = begin(bench.command, bench.place, name="said-too")
        for ended in (wait_for(first), wait_for(second)):
            refused = bench.work.again is not None and bench.work.again in ended.said
            if ended.code not in (0, HELD) and not refused:
                troubles.append((f"two at once, {moment}", f"{ended.code}: {ended.said[-300:]}"))
        troubles += bench.troubles(f"two at once, {moment}")
    report(f"{bench.work.name}: two processes at once", MOMENTS, troubles)


def clock_backwards(bench: Bench, report: Report) -> None:
    """Work while the clock goes backwards: from the beginning, and after a kill half-way."""
    troubles: list[Trouble] = []
    for killed in (0, len(bench.operations) // 2):
        bench.renew()
        if killed:
            bench.disturbed(Injection(bench.place, killed, "kill"))
        ended = bench.disturbed(ClockBackwards())
        if ended.code:
            troubles.append(("clock backwards", f"{ended.code}: {ended.said[-300:]}"))
        troubles += bench.troubles("clock backwards")
    report(f"{bench.work.name}: a clock that goes backwards", 2, troubles)
