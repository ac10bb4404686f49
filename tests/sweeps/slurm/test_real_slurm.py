"""Sweeps on a real Slurm of one node; ``make slurm-test`` makes one; elsewhere these are skipped.

Every job is a whole run of a tiny toy, on one of two CPUs; one that has to last is slowed (slow_world.py).
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import until

SLURM = os.environ.get("LOKU_SLURM", "")
pytestmark = pytest.mark.skipif(not SLURM, reason="no Slurm made for tests: make slurm-test")
HERE = Path(__file__).parent
ONE_CPU = [
    "launcher=slurm",
    "launcher.parameters.gpus_per_node=null",
    "launcher.parameters.cpus_per_task=1",
    "launcher.parameters.mem_gb=1.5",
]
TINY = [
    "dataset._target_=slow_world.load_toy_tofu",
    "dataset.num_authors=4",
    "dataset.num_forget=1",
    "dataset.num_others=15",
    "model.vocabulary=300",
    "model.architecture.hidden_size=32",
    "model.finetuning.epochs=1",
    "target.min_known=0",
    "reference.source=none",
    "training.batch_size=4",
    "training.micro_batch_size=4",
    "training.epochs=1",
    "evaluation.curve=none",
    "init=vanilla",
    "lora.rank=4",
]


class Sweep:
    """A sweep that goes on by itself, with what it has printed."""

    def __init__(self, place: Path, cache: Path, *overrides: str, slow: float = 0.0):
        place.mkdir(parents=True, exist_ok=True)
        self.text = place / "printed.txt"
        tiny = [one for one in TINY if one.split("=")[0] not in " ".join(overrides)]
        places = [f"output_dir={place}/out", f"cache_dir={cache}"]
        paths = [str(HERE), str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")]
        with self.text.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loku_exp", "-m", *tiny, *places, *overrides],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | {"LOKU_SLOW": str(slow), "PYTHONPATH": ":".join(paths)},
                start_new_session=True,
                # where this test runs in the background of a script, Ctrl-C is ignored by all it starts
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    @property
    def printed(self) -> str:
        return self.text.read_text()

    def job(self, label: str = ".*") -> str:
        """Return the number of a job once it is submitted."""
        line = re.compile(rf"submitted {label} as job (\d+)")
        until(lambda: line.search(self.printed) or self.process.poll() is not None, 120)
        found = line.search(self.printed)
        assert found, self.printed
        return found[1]

    def ends(self, code: int, seconds: int = 240) -> None:
        """Wait for its end, with an exit code and without a traceback or a warning of sacct."""
        try:
            assert self.process.wait(seconds) == code, self.printed
        finally:
            if self.process.poll() is None:
                self.process.kill()
        assert not re.search("sacct|Traceback", self.printed)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.ends(130, 60)


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def state(job: str) -> str:
    return slurm("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}").strip()


def in_queue() -> str:
    return slurm("squeue", "--noheader", "--format=%i %T").strip()


def comes_to(job: str, *states: str) -> None:
    until(lambda: state(job) in states, 60)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache in which the base of `TINY` lies."""
    place = tmp_path_factory.mktemp("base")
    made = Sweep(place, place / "cache", "launcher=in_process")
    made.ends(0)
    return place / "cache"


@pytest.fixture(autouse=True)
def empty_queue():
    yield
    slurm("scancel", "--user=0")
    until(lambda: not in_queue(), 60)


def test_one_fails_two_are_cancelled_and_one_is_finished(cache, tmp_path):
    pairs = (
        "pairs=[{seed: 1, training.epochs: 40}, {seed: 2, training.learning_rate: 1e9}, "
        "{seed: 3, training.epochs: 40}, {seed: 4}]"
    )
    long, fails = "seed=1 training.epochs=40", "seed=2 training.learning_rate=1000000000.0"
    waits, good = "seed=3 training.epochs=40", "seed=4"
    sweep = Sweep(tmp_path, cache, *ONE_CPU, pairs, slow=0.25)
    pending = sweep.job(waits)
    assert state(pending) == "PENDING"
    slurm("scancel", pending)
    running = sweep.job(long)
    until(lambda: list(tmp_path.glob("out/*/snapshots/step-*")), 90)
    assert state(running) == "RUNNING"
    slurm("scancel", running)
    sweep.ends(1)
    cancelled = "CANCELLED: cancelled or interrupted; the same command goes on"
    printed = sweep.printed
    assert f"failed: {long}: job {running}, {cancelled}" in printed
    assert f"failed: {waits}: job {pending}, {cancelled}" in printed
    assert f"failed: {fails}: the loss is nan" in printed
    assert re.search(rf"^{good}:? +finished", printed, re.MULTILINE)


def test_what_sbatch_refuses_is_a_line_a_job(cache, tmp_path):
    sweep = Sweep(tmp_path, cache, *ONE_CPU, "launcher.parameters.gpus_per_node=1", "seed=1,2")
    sweep.ends(1)
    for seed in (1, 2):
        said = (
            f"failed: seed={seed}: sbatch refused it: Invalid generic resource (gres) specification"
        )
        assert sweep.printed.count(said) == 1
    assert "gpus_per_node=1" in sweep.printed


def test_a_base_and_an_unlearning_go_on_after_their_time_limit(cache, tmp_path):
    """To the same bits as undisturbed ones."""
    pairs = (
        "pairs=[{model.finetuning.epochs: 12, training.epochs: 1}, "
        "{model.finetuning.epochs: 1, training.epochs: 30}]"
    )
    undisturbed = Sweep(tmp_path / "plain", tmp_path / "cache", "launcher=in_process", pairs)
    undisturbed.ends(0)
    limits = ["timeout_min=1", "slurm_signal_delay_s=5"]
    limited = [f"launcher.parameters.{limit}" for limit in limits]
    sweep = Sweep(
        tmp_path / "limited", cache, *ONE_CPU, *limited, "launcher.max_timeouts=9", pairs, slow=0.5
    )
    sweep.ends(0, 400)
    logs = "".join(path.read_text() for path in tmp_path.glob("limited/out/*/run.log"))
    assert "training the target goes on from step-" in logs
    assert ": going on from step-" in logs
    for folder in (tmp_path / "plain/out").glob("toy*"):
        adapter = "adapter/adapter_model.safetensors"
        again = tmp_path / "limited/out" / folder.name / adapter
        assert again.read_bytes() == (folder / adapter).read_bytes()


def test_a_preempted_job_is_queued_again_and_goes_on(cache, tmp_path):
    both = "launcher.parameters.cpus_per_task=2"
    sweep = Sweep(tmp_path, cache, *ONE_CPU, both, "training.epochs=20", "seed=1", slow=0.1)
    job = sweep.job()
    until(lambda: list(tmp_path.glob("out/*/snapshots/step-*")), 90)
    slurm("sbatch", "--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 3")
    comes_to(job, "PENDING")
    sweep.ends(0)
    (log,) = tmp_path.glob("out/*/run.log")
    assert "going on from step-" in log.read_text()


def test_too_many_time_outs_are_said(cache, tmp_path):
    limits = ["timeout_min=1", "slurm_signal_delay_s=60"]
    limited = [f"launcher.parameters.{limit}" for limit in limits]
    sweep = Sweep(
        tmp_path, cache, *ONE_CPU, *limited, "launcher.max_timeouts=0", "training.epochs=99", slow=1
    )
    sweep.ends(1)
    assert "ran out of time 1 times; the same command goes on, or raise" in sweep.printed


def test_ctrl_c_cancels_the_running_and_the_pending(cache, tmp_path):
    sweep = Sweep(tmp_path, cache, *ONE_CPU, "training.epochs=40", "seed=1,2,3", slow=0.5)
    jobs = [sweep.job(f"seed={seed}") for seed in (1, 2, 3)]
    comes_to(jobs[0], "RUNNING")
    assert state(jobs[2]) == "PENDING"
    sweep.interrupt()
    for job in jobs:
        comes_to(job, "CANCELLED")


def test_without_the_controller_ctrl_c_says_how_to_cancel(cache, tmp_path):
    sweep = Sweep(tmp_path, cache, *ONE_CPU, "training.epochs=40", "seed=1,2", slow=0.5)
    jobs = [sweep.job(f"seed={seed}") for seed in (1, 2)]
    comes_to(jobs[0], "RUNNING")
    pid = Path(SLURM, "slurmctld.pid")
    os.kill(int(pid.read_text()), signal.SIGTERM)
    try:
        until(lambda: not pid.exists() and "the jobs are waited for" in sweep.printed)
        sweep.interrupt()
    finally:
        subprocess.run(["slurmctld"], check=True)
    until(lambda: subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0)
    assert sweep.printed.count("the jobs are waited for") == 1
    (command,) = re.findall(
        "error: jobs not cancelled: scancel: .*; once Slurm answers: (.+)", sweep.printed
    )
    assert {state(job) for job in jobs} <= {"RUNNING", "PENDING"}
    slurm(*command.split())
    for job in jobs:
        comes_to(job, "CANCELLED")
