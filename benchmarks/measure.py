"""Interleaved timing, peak memory, and limits that a benchmark must keep."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOLERANCE = 1.3  # a named limit may be missed by 30 % on a busy machine before the command fails


@dataclass(frozen=True)
class Row:
    """One line of the table: a value, its limit, and what both are in words."""

    name: str
    value: float
    limit: float
    unit: str
    detail: str

    @property
    def verdict(self) -> str:
        """Whether the limit is met, missed, or missed by so much that the command fails."""
        if self.value <= self.limit:
            return "met"
        return "missed" if self.value <= TOLERANCE * self.limit else "FAILED"


def interleaved(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Run each way in turn, a warm-up round first; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(repeats + 1):
        for name, way in ways.items():
            gc.collect()
            start = time.perf_counter()
            way()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def extra_memory(way: Callable[[], object]) -> int:
    """Return the peak of resident memory above what was there before, in bytes (Linux)."""
    way()  # buffers that stay are not its own
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    way()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")
