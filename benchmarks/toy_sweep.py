"""A sweep that is killed twice ends with the numbers of an undisturbed one: 24 toy runs, two at a time.

Usage:
    python -m benchmarks.toy_sweep [DIR]

Runs the sweep once undisturbed and once killed (SIGKILL) after a quarter and after half of its runs, each
time while a run has a snapshot; then compares every run, times apart, byte by byte. DIR keeps both sweeps
(``DIR/whole``, ``DIR/killed``); without it they are dropped.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loku_exp.runtime.finished import DONE

GRID = ["loss=gd,ihl", "init=vanilla,fila", "lora.rank=4,8,16", "seed=0,1"]
TWO_AT_A_TIME = ["launcher=processes", "launcher.jobs=2"]
NUM_RUNS = 24
EXACT = ("examples.jsonl", "results.md", "init.safetensors", "adapter/adapter_model.safetensors")


def main() -> None:
    with tempfile.TemporaryDirectory() as aside:
        place = Path(sys.argv[1] if sys.argv[1:] else aside)
        if any((place / name).exists() for name in ("whole", "killed")):
            raise SystemExit(f"{place} holds sweeps already; name another folder, or remove it")
        seconds, resumed = check([*GRID, *TWO_AT_A_TIME], NUM_RUNS, place)
    print(
        f"{NUM_RUNS} runs: {seconds / 60:.1f} min undisturbed; killed twice, {resumed} runs gone on with "
        "from a snapshot, every run equal byte for byte"
    )


def check(overrides: list[str], num_runs: int, place: Path) -> tuple[float, int]:
    """Compare a sweep with the same one killed twice; return seconds undisturbed, and runs resumed.

    Raises:
        AssertionError: they differ, or nothing was resumed.
    """
    command = [sys.executable, "-m", "loku_exp", "-m", *overrides, f"cache_dir={place}/cache"]
    start = time.perf_counter()
    subprocess.run([*command, f"output_dir={place}/whole"], check=True)
    seconds = time.perf_counter() - start
    killed = [*command, f"output_dir={place}/killed"]
    for share in (4, 2):
        _kill_midway(killed, place / "killed", num_runs // share)
    subprocess.run(killed, check=True)
    whole, again = (
        {path.parent.name: path.parent for path in (place / name).glob(f"*/{DONE}")}
        for name in ("whole", "killed")
    )
    assert len(whole) == num_runs, f"{len(whole)} runs, not {num_runs}"
    assert whole.keys() == again.keys()
    for name in whole:
        _compare(whole[name], again[name])
    logs = [(folder / "run.log").read_text() for folder in again.values()]
    resumed = sum("going on from step" in log for log in logs)
    assert resumed, "no run went on from a snapshot"
    return seconds, resumed


def _kill_midway(command: list[str], output: Path, num_done: int) -> None:
    """Start a sweep and kill it when so many runs are done and another one has a snapshot."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        done = {path.parent for path in output.glob(f"*/{DONE}")}
        begun = {path.parents[1] for path in output.glob("*/snapshots/step-*")}
        if len(done) >= num_done and begun - done:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.02)
    assert process.wait() == -signal.SIGKILL, "the sweep ended before it was killed"


def _compare(one: Path, two: Path) -> None:
    """Check that two folders hold the same run; times, memory and commit apart."""
    for name in EXACT:
        if (one / name).is_file() or (two / name).is_file():
            assert (one / name).read_bytes() == (two / name).read_bytes(), f"{two / name} differs"
    records = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    for record in records:
        del record["cost"], record["run"]["started"], record["run"]["commit"]
    assert records[0] == records[1], f"{two}/metrics.json differs"


if __name__ == "__main__":
    main()
