"""Processes end when they are asked to, and with the one that started them."""

import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import alive, until

POOL = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from loku_exp.runtime.lifetime import end_in_order, end_with_parent

if __name__ == "__main__":
    end_in_order()
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), end_with_parent)
    pids = [pool.submit(__import__("os").getpid).result()]
    jobs = [pool.submit(time.sleep, 60) for _ in range(2)]
    time.sleep(0.5)
    Path(sys.argv[1]).write_text(" ".join(str(pid) for pid in pool._processes))
    try:
        time.sleep(60)
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
"""

STARTER = """
import os, subprocess, sys, time
child = (
    "import os, sys, time; from pathlib import Path; from loku_exp.runtime.lifetime import *;"
    "end_in_order(); end_with_starter(); Path(sys.argv[1]).write_text(str(os.getpid()));"
    "time.sleep(60)"
)
environment = os.environ | {"LOKU_PARENT": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", child, sys.argv[1]], env=environment)
time.sleep(60)
"""


@pytest.mark.parametrize("code", [POOL, STARTER], ids=["pool", "sweep"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_their_parent_however_it_ends(tmp_path, code, number):
    script, pids = tmp_path / "script.py", tmp_path / "pids"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(pids)], env=environment, stderr=subprocess.DEVNULL
    )
    until(lambda: pids.is_file() and pids.read_text())
    children = [int(pid) for pid in pids.read_text().split()]
    assert all(map(alive, children))
    parent.send_signal(number)
    parent.wait(30)
    until(lambda: not any(map(alive, children)))
