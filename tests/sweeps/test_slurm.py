"""What the launcher makes of Slurm's answers; scripts stand in for its commands, slurm/ is real."""

import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("submitit")

from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError
from loku_exp.runtime.programs import INTERRUPTED
from loku_exp.sweeps import queue, slurm, sweep
from loku_exp.sweeps.jobs import Ending, Job
from loku_exp.sweeps.slurm import Cluster, Command
from loku_exp.sweeps.sweep import work_on

CANCELLED = "cancelled or interrupted; the same command goes on"
SBATCH = 'echo x >> "$SAID/jobs"; echo "Submitted batch job $(wc -l < "$SAID/jobs")"'


@pytest.fixture
def said(tmp_path, monkeypatch) -> Path:
    """The folder of the commands that stand in; each writes down what it was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(folder))
    monkeypatch.setattr(queue, "SECONDS_BETWEEN_QUESTIONS", 0)
    for name, code in {"sbatch": SBATCH, "squeue": "", "scancel": "", "srun": ""}.items():
        answers(folder, name, code)
    return folder


def answers(folder: Path, name: str, code: str) -> None:
    file = folder / name
    file.write_text(f'#!/bin/sh\necho "$@" >> "$SAID/{name}.calls"\n{code}\n')
    file.chmod(0o755)


def calls(said: Path, name: str) -> list[str]:
    file = said / f"{name}.calls"
    return file.read_text().splitlines() if file.is_file() else []


@pytest.fixture
def cluster(said, tmp_path):
    def cluster(*overrides) -> Cluster:
        return Cluster(compose_config(["launcher=slurm", f"output_dir={tmp_path}/out", *overrides]))

    return cluster


def jobs(tmp_path, *names) -> list[Job]:
    config = compose_config([])
    return [Job(name, [], None, config, tmp_path / "out" / name) for name in names]


def worked(jobs, launcher) -> dict[str, str]:
    return {job.label: job.error or job.state for job in work_on(jobs, launcher)}


def test_what_sbatch_refuses_is_one_line_and_the_others_go_on(cluster, said, tmp_path):
    refuse = 'echo "sbatch: error: Invalid generic resource\nsbatch: error: gres" >&2; exit 1'
    answers(said, "sbatch", f'[ -f "$SAID/once" ] || {{ touch "$SAID/once"; {refuse}; }}; {SBATCH}')
    result = worked(jobs(tmp_path, "a", "b"), cluster("launcher.jobs=1"))
    assert result["a"] == (
        "sbatch refused it: Invalid generic resource gres; change launcher.parameters (timeout_min=240, "
        "gpus_per_node=1, cpus_per_task=4, mem_gb=32, slurm_signal_delay_s=90)"
    )
    assert result["b"].startswith("job 1, gone from the queue: ")
    assert not (tmp_path / "out/a").exists()


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("CANCELLED", CANCELLED),
        ("OUT_OF_MEMORY", "memory ran out; raise launcher.parameters.mem_gb"),
        ("TIMEOUT", "it ran out of time; raise launcher.parameters.timeout_min"),
        ("FAILED", "srun: error: exit 1"),
    ],
)
def test_squeue_says_how_a_job_without_a_result_ended(cluster, said, tmp_path, state, reason):
    answers(said, "squeue", f'echo "1 {state}"')
    (tmp_path / "out/.slurm").mkdir(parents=True)
    (tmp_path / "out/.slurm/1_0_log.err").write_text("srun: error: exit 1\n\n")
    assert worked(jobs(tmp_path, "a"), cluster()) == {"a": f"job 1, {state}: {reason}"}
    call = calls(said, "squeue")[0]
    assert re.fullmatch(
        rf"--noheader --states=all --format=%i %T --name=loku_exp-\w{{8}} --user={os.getuid()}",
        call,
    )


def test_a_job_is_over_at_the_second_look_that_says_so(cluster, said, tmp_path):
    launcher = cluster()
    work = launcher.start(*jobs(tmp_path, "a"), slot=0)
    for state in ("PENDING", "RUNNING", "COMPLETED", "PENDING", "COMPLETED"):
        answers(said, "squeue", f'echo "1 {state}"')
        assert work.poll() is None
    result = tmp_path / "out/.slurm/1_0_result.pkl"
    result.write_bytes(pickle.dumps(("success", 75)))
    assert work.poll() == Ending(held=True)  # it arrived late


def test_without_accounting_a_job_cancelled_while_pending_ends_and_each_line_is_said_once(
    cluster, said, tmp_path, monkeypatch, caplog, capfd, recwarn
):
    """It is at the fourth look. Where accounting is off sacct fails, and submitit warns of it each time."""
    monkeypatch.setattr(sweep, "SECONDS_BETWEEN_LOOKS", 0)
    answers(said, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    answers(said, "squeue", '[ $(wc -l < "$SAID/squeue.calls") -gt 3 ] || echo "1 PENDING"')
    caplog.set_level(logging.INFO)
    result = worked(jobs(tmp_path, "a"), cluster())
    assert result == {"a": f"job 1, gone from the queue: {queue.REASONS[queue.GONE]}"}
    assert len(calls(said, "squeue")) == 5  # three of it pending, two of it gone
    assert calls(said, "sacct") == []
    assert [record.message for record in caplog.records] == [
        "starting a", "submitted a as job 1",
    ]  # fmt: skip
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr().err == ""


def test_a_controller_that_is_away_is_waited_for_and_named_once(cluster, said, tmp_path, caplog):
    launcher = cluster()
    work = launcher.start(*jobs(tmp_path, "a"), slot=0)
    answers(said, "squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    assert [work.poll() for _ in range(3)] == [None] * 3
    assert [record.message for record in caplog.records if "Unable" in record.message] == [
        "squeue: slurm_load_jobs error: Unable to contact; the jobs are waited for"
    ]
    answers(said, "squeue", "")
    assert work.poll() is None
    assert work.poll().error.startswith("job 1, gone from the queue")


def test_one_cancel_reaches_all_jobs_of_the_sweep(cluster, said, tmp_path, caplog):
    answers(said, "squeue", "seq 9 | sed 's/$/ RUNNING/'")
    launcher = cluster()
    works = [launcher.start(job, slot=0) for job in jobs(tmp_path, "a", "b")]
    launcher.stop(works)
    assert calls(said, "scancel") == [f"--name={launcher.queue.name} --user={os.getuid()}"]
    answers(said, "scancel", "echo 'scancel: error: Unable to contact\nslurm' >&2; exit 1")
    launcher.stop(works)
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [
        "error: jobs not cancelled: scancel: scancel: error: Unable to contact slurm; once Slurm answers: "
        f"scancel --name={launcher.queue.name} --user={os.getuid()}"
    ]


def test_an_interrupt_between_sbatch_and_its_answer_cancels_that_job_too(
    cluster, said, tmp_path, monkeypatch
):
    launcher = cluster()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher.executor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worked(jobs(tmp_path, "a"), launcher)
    assert len(calls(said, "scancel")) == 1


def test_too_many_time_outs_are_said_with_the_key_to_raise(cluster, said, tmp_path):
    launcher = cluster("launcher.max_timeouts=1", "launcher.parameters.slurm_signal_delay_s=7")
    work = launcher.start(*jobs(tmp_path, "a"), slot=0)
    trace = (
        "Traceback\nsubmitit.core.utils.UncompletedJobError: Job not requeued because: "
        "timed-out too many times.\n"
    )
    result = tmp_path / "out/.slurm/1_0_result.pkl"
    result.write_bytes(pickle.dumps(("error", trace)))
    assert work.poll().error == (
        "job 1: ran out of time 2 times; the same command goes on, or raise "
        "launcher.parameters.timeout_min or launcher.max_timeouts"
    )
    result.write_bytes(pickle.dumps(("error", "Traceback\nOSError: no room\n")))
    assert work.poll().error == "job 1: OSError: no room"
    (script,) = (tmp_path / "out/.slurm").glob("1_submission.sh")
    assert "#SBATCH --signal=USR2@7" in script.read_text()


def test_a_run_that_was_ended_from_outside_leaves_no_result(tmp_path, monkeypatch):
    """An exit, so that Slurm's word counts: cancelled, or in the queue again."""
    monkeypatch.setattr(slurm, "SECONDS_TO_BE_TOLD", 0)
    console = tmp_path / "new folder/console.log"

    def run(code: str) -> int:
        return Command([sys.executable, "-S", "-c", code], str(console))()

    assert run("import sys; sys.exit(3)") == 3
    for number in (signal.SIGTERM, signal.SIGUSR2):
        with pytest.raises(SystemExit):
            run(f"import os; os.kill(os.getpid(), {int(number)})")
    with pytest.raises(SystemExit):
        run(f"import sys; sys.exit({INTERRUPTED})")


def test_slurm_cannot_end_the_command_that_queues_a_job_again():
    """Slurm signals all processes of a job that is queued again: scontrol too, before it is done."""
    submitits_part = (
        "import signal, subprocess, sys\n"
        "from loku_exp.sweeps.slurm import Command\n"
        "Command([], '').checkpoint()\n"
        "scontrol = subprocess.Popen(['sleep', '0.2'])\n"
        "scontrol.send_signal(signal.SIGTERM)\n"
        "sys.exit(scontrol.wait())\n"
    )
    subprocess.run([sys.executable, "-c", submitits_part], check=True)


def test_mistakes_of_a_launcher_are_one_line(cluster, said, monkeypatch):
    for wrong in ("+launcher.parameters.slurm_nodez=2", "launcher.parameters.mem_gb=much"):
        with pytest.raises(ConfigError, match=r"^launcher\.parameters: .*(nodez|mem_gb)") as raised:
            cluster(wrong)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="max_timeouts"):
        cluster("launcher.max_timeouts=-1")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"there is no sbatch here; .*launcher\.cluster=local"):
        cluster()


def test_a_job_name_of_the_users_own_is_kept_as_a_beginning(cluster):
    assert re.fullmatch(
        r"mine-\w{8}", cluster("+launcher.parameters.slurm_job_name=mine").queue.name
    )


def test_where_no_slurm_can_be_had_its_tests_say_so_in_one_line(tmp_path):
    for name in ("id", "tr"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    script = Path(__file__).parent / "slurm/one_node.sh"
    done = subprocess.run(
        [str(shutil.which("bash")), script],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: slurm-test: .*(apt-get|root).*\n", done.stderr)
