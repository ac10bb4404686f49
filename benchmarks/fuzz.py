"""The readers and the command line under invented input, for longer than the tests have time for.

Usage:
    python -m benchmarks.fuzz [SEED]     FUZZ_SECONDS=300 FUZZ_ROUNDS=1000

Runs the property tests of readers (json lines, csv, txt, arrays, parquet), of a user's own yaml and of
command lines again and again, with another seed each time. The first that fails ends it, with hypothesis'
smallest example and the seed that finds it again; exit code 1. What is over first, the time or the
rounds, ends it: so many rounds from a seed on invent the same everywhere.
"""

import importlib
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import settings
from hypothesis.internal.detection import is_hypothesis_test

MODULES = (
    "tests.data.test_text_files_properties",
    "tests.config.test_overrides_properties",
    "tests.config.test_yaml_properties",
)


def main(arguments: list[str]) -> int:
    """Fuzz until the time is over; return the exit code."""
    seconds, seed = float(os.environ.get("FUZZ_SECONDS", "300")), int([*arguments, "0"][0])
    last = seed + int(os.environ.get("FUZZ_ROUNDS", "1000"))
    use_profile()
    tests = property_tests()
    print(
        f"{len(tests)} properties, at most {seconds:.0f} s, seeds {seed} to {last - 1}", flush=True
    )
    rounds, end = Counter[str](), time.monotonic() + seconds
    while seed < last and time.monotonic() < end:
        for name, test in tests.items():
            try:
                hypothesis.seed(seed)(test)()
            except Exception:
                traceback.print_exc()
                print(f"{name} fails with seed {seed}")
                return 1
            rounds[name] += 1
            if time.monotonic() > end:
                break
        seed += 1
    for name in tests:
        print(f"{name}: {rounds[name]} rounds")
    return 0


def use_profile() -> None:
    """Set no deadline, and keep no examples: each round is known by its seed."""
    settings.register_profile("fuzz", deadline=None, database=None)
    settings.load_profile("fuzz")


def property_tests() -> dict[str, Callable[[], Any]]:
    """Return the property tests of all modules, by module and name."""
    found = {}
    for module in MODULES:
        for name, value in vars(importlib.import_module(module)).items():
            if name.startswith("test_") and is_hypothesis_test(value):
                found[f"{module.rpartition('.')[2]}.{name}"] = value
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
