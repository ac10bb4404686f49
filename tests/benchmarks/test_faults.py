"""A share of what `make faults` tries; that it finds what it looks for is tried on purpose-built faults."""

import os
import signal
import subprocess
import sys

import pytest

from benchmarks.faults.injection import Crash, Injection
from benchmarks.faults.work import attempt, differences, left


@pytest.mark.slow
def test_a_share_of_all_faults_loses_and_changes_nothing():
    """Five kill -9, a fortieth of the crashes and damages, two processes at once: two to three minutes."""
    command = [sys.executable, "-m", "benchmarks.faults", "crash", "kill", "files", "disk"]
    options = ["--work", "run", "export", "--share", "0.025", "--kills", "10"]
    result = subprocess.run([*command, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert result.stdout.splitlines()[-1].startswith("0 wrong of ")


def in_child(place, work, injection=None):
    """Run a function as a command is; return its exit code and the operations that were seen."""
    listed = place.with_name("listed")
    watched = injection or Injection(place, listed=listed)
    child = os.fork()
    if child == 0:
        code = 3
        try:
            watched.begin()
            work()
            watched.note()
            code = 0
        except Crash:
            code = 9
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def two_files(place):
    """Write one file aside and rename it, then add to another."""

    def work():
        (place / "aside").write_text("whole content")
        os.replace(place / "aside", place / "file")
        with (place / "lines").open("a") as stream:
            stream.write("second\n")
            stream.flush()
            os.fsync(stream.fileno())

    (place / "lines").write_text("first\n")
    return work


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_operations_are_seen_in_order(place):
    work = two_files(place)
    assert in_child(place, work) == 0
    assert place.with_name("listed").read_text().splitlines() == [
        "write /aside",
        "os.rename /file",
        "write /lines",
        "fsync /lines",
    ]


@pytest.mark.parametrize(
    ("number", "there"),
    [
        (1, {"aside": '{"half', "lines": "first\n"}),
        (2, {"file": "whole content", "lines": "first\n"}),
        (3, {"file": "whole content", "lines": 'first\n{"half'}),
        (4, {"file": "whole content", "lines": "first\n"}),
    ],
)
def test_a_kill_leaves_the_operation_half_done(place, number, there):
    work = two_files(place)
    assert in_child(place, work, Injection(place, number, "kill")) == -signal.SIGKILL
    found = {file.name: file.read_text() for file in place.iterdir()}
    if number == 4:  # half of what was not on the disk yet is gone
        assert found.pop("lines") == "first\n"[: len("first\nsecond\n") // 2]
        there = {"file": there["file"]}
    assert found == there


def test_an_exception_comes_before_the_operation(place):
    work = two_files(place)
    assert in_child(place, work, Injection(place, 2)) == 9
    assert {file.name for file in place.iterdir()} == {"aside", "lines"}


@pytest.mark.parametrize(("how", "said"), [("full", "No space"), ("read-only", "Read-only")])
def test_a_disk_stays_full(place, how, said):
    def work():
        for name in ("one", "two", "three"):
            try:
                (place / name).write_text("x")
            except OSError as error:
                print(error, file=sys.stderr)

    assert in_child(place, work, Injection(place, 2, how)) == 0
    assert {file.name for file in place.iterdir()} == {"one"}


def test_what_is_lost_changed_or_half_is_told_apart(place):
    for name in ("same", "other", "gone"):
        (place / name).write_text(name)
    before = left(place)
    (place / "other").write_text("changed")
    (place / "gone").unlink()
    (place / ".4711.half").write_text("")
    (place / "run.log").write_text("a log is not compared")
    (place / "damaged-same-1").write_text("nor what was set aside")
    assert list(differences(before, left(place))) == [
        "half: .4711.half",
        "lost: gone",
        "changed: other",
    ]


def test_a_command_that_fails_is_told_by_its_code_and_words(place):
    ended = attempt(["loku_exp.export", str(place), "--to", str(place / "to")], place)
    assert ended.code == 1
    assert "is no folder of a run" in ended.said
