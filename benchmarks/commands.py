"""Whole commands, as a user waits for them."""

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.measure import Row


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        places = [f"output_dir={folder}/out", f"cache_dir={folder}/cache"]
        _seconds("--help")  # files into memory
        return [
            Row("--help", _seconds("--help"), 2, "s", "wall"),
            Row("a typo", _seconds("lora.rnak=4", "loss.retain_wieght=2", code=1), 2, "s", "wall"),
            Row("embedded default, cold", _seconds(*places), 150, "s", "both bases trained"),
            Row("embedded default, warm", _seconds(*places, "seed=1"), 45, "s", "bases cached"),
        ]


def _seconds(*arguments: str, code: int = 0) -> float:
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "loku_exp", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    if result.returncode != code:
        raise RuntimeError(f"{arguments} exited with {result.returncode}:\n{result.stderr}")
    return time.perf_counter() - start
