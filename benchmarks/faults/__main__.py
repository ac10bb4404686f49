"""Faults on purpose: crashes, kills, damaged files, a full disk; what the bench promises, tried.

Usage:
    python -m benchmarks.faults [KIND ...] [--work NAME ...] [--share 0.1] [--kills 120] [--seed 0]

Exit code 1 where anything is lost, changed, half there, or wrong without a word.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults.bench import Bench, Trouble, warm
from benchmarks.faults.crashes import crash_everywhere
from benchmarks.faults.damages import damage_everything
from benchmarks.faults.kills import kill_at_random
from benchmarks.faults.surroundings import clock_backwards, no_room, two_at_once
from benchmarks.faults.work import WORKS

KINDS = ("crash", "kill", "files", "disk", "twice", "clock")
KILLS = {"run": 0.4, "sweep": 0.2, "attack": 0.2, "export": 0.1, "bases": 0.1}  # shares
MEMORY = Path("/dev/shm")  # where there is one, a thousand runs wear no disk


def main(arguments: list[str]) -> int:
    """Disturb what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--work", nargs="*", default=list(WORKS), choices=list(WORKS))
    parser.add_argument("--share", type=float, default=1.0, help="of the operations and files")
    parser.add_argument("--kills", type=int, default=120, help="kill -9 at random, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    found: list[Trouble] = []
    trials = 0

    def report(what: str, tried: int, troubles: list[Trouble]) -> None:
        nonlocal trials
        trials += tried
        print(
            f"{what}: {tried} tried, {len(troubles)} wrong ({time.strftime('%H:%M:%S')})",
            flush=True,
        )
        for done, trouble in troubles:
            print(f"    {done}: {trouble}", flush=True)
        found.extend(troubles)

    print(f"seed {options.seed}, share {options.share:g}", flush=True)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        warm(Path(folder))
        for name in options.work:
            bench = Bench.of(WORKS[name], Path(folder))
            if "crash" in options.kinds:
                crash_everywhere(bench, options.share, report)
            if "kill" in options.kinds:
                kills = round(options.kills * KILLS[name])
                kill_at_random(bench, kills, options.seed, report)
            if "files" in options.kinds and name == "export":
                damage_everything(bench, options.share, report)
            if "disk" in options.kinds:
                no_room(bench, options.share / 8, report)
            if "twice" in options.kinds:
                two_at_once(bench, report)
            if "clock" in options.kinds:
                clock_backwards(bench, report)
    print(f"{len(found)} wrong of {trials}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
