"""A process that ends at each of its file operations, and the same command again."""

import signal

from benchmarks.faults.bench import Bench, Report, Trouble
from benchmarks.faults.injection import Injection

RAISED = 9  # exit code of a process that an exception ended


WAYS = (("raise", RAISED), ("kill", -signal.SIGKILL))
TWICE = ("run", "export")  # tried both ways at each operation; of other works one, in turn


def crash_everywhere(bench: Bench, share: float, report: Report) -> None:
    """End a work at every operation: by an exception before it, or by SIGKILL with half of it done.

    Args:
        bench: of the work.
        share: of the operations.
        report: told of both ways.
    """
    step = max(1, round((1 if bench.work.name in TWICE else 2) / share))
    for order, (how, code) in enumerate(WAYS):
        troubles: list[Trouble] = []
        numbers = range(1 + order % step, len(bench.operations) + 1, step)
        for number in numbers:
            what = f"{how} at {number}, {bench.operations[number - 1]}"
            bench.renew()
            ended = bench.disturbed(Injection(bench.place, number, how))
            if ended.code != code:
                troubles.append((what, f"went on: exit code {ended.code}: {ended.said[-300:]}"))
            troubles += bench.troubles(what)
        report(f"{bench.work.name}: {how} at a file operation", len(numbers), troubles)
