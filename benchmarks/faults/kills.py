"""SIGKILL at moments drawn at random, up to three times, and the same command again."""

import random
import signal
import time

from benchmarks.faults.bench import Bench, Report, Trouble
from benchmarks.faults.work import attempt

AT_MOST = 3  # kills of one work before it may end


def kill_at_random(bench: Bench, kills: int, seed: int, report: Report) -> None:
    """Kill a work so often in all, at moments spread evenly over the time it takes.

    Args:
        bench: of the work.
        kills: how many processes must end by SIGKILL.
        seed: of the moments.
        report: told once.
    """
    moments, troubles, done = random.Random(f"{seed} {bench.work.name}"), list[Trouble](), 0
    bench.renew()
    start = time.perf_counter()
    bench.disturbed()
    seconds = time.perf_counter() - start
    while done < kills:
        bench.renew()
        waits = []
        for _ in range(moments.randint(1, AT_MOST)):
            waits.append(moments.uniform(0, seconds))
            ended = attempt(bench.command, bench.place, kill_after=waits[-1])
            done += ended.code == -signal.SIGKILL
        what = "killed after " + ", ".join(f"{wait:.2f} s" for wait in waits)
        troubles += bench.troubles(what)
    report(f"{bench.work.name}: kill -9 at random", done, troubles)
