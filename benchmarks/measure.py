"""Interleaved timing, peak memory, and limits that a benchmark must keep."""

import ctypes
import gc
import importlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loku_exp.runtime.logs import start_logging
from loku_exp.stages.provenance import provenance

TOLERANCE = 1.3  # a named limit may be missed by 30 % on a busy machine before the command fails


@dataclass(frozen=True)
class Row:
    """One line of the table: a value, its limit, and what both are in words."""

    name: str
    value: float
    limit: float
    unit: str
    detail: str
    at_least: bool = False  # the limit is one from below

    @property
    def verdict(self) -> str:
        """Whether the limit is met, missed, or missed by so much that the command fails."""
        if self.limit in (0, float("inf")):
            return ""
        share = self.limit / self.value if self.at_least else self.value / self.limit
        if share <= 1:
            return "met"
        return "missed" if share <= TOLERANCE else "FAILED"

    @property
    def limit_text(self) -> str:
        """The limit in words, empty where none is named."""
        if self.limit in (0, float("inf")):
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


def measured(part: str) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of a part and where they were measured.

    To be called in a process of its own, so that parts leave one another neither memory nor threads.
    """
    torch.set_num_threads(1)
    start_logging()
    return importlib.import_module(f"benchmarks.{part}").rows(), provenance()


def interleaved(
    ways: Mapping[str, Callable[[], object]], repeats: int, *, warmed: bool = False
) -> dict[str, float]:
    """Run each way in turn, a warm-up round first unless warmed; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(0 if warmed else -1, repeats):
        for name, way in ways.items():
            gc.collect()
            took = seconds_of(way)
            if round_ >= 0:
                seconds[name].append(took)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seconds_of(way: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def extra_memory(way: Callable[[], object], *, warmed: bool = False) -> int:
    """Return the peak of resident memory above what was there before, in bytes (Linux)."""
    if not warmed:
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
