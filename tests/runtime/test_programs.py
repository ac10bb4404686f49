"""How programs end: one line a problem, an exit code, and a traceback only where it is asked for."""

import errno
import io
import re
import subprocess
import sys

import pytest
import torch

from loku_exp.errors import ConfigError, HeldError, StorageError
from loku_exp.runtime.cache import folder_digest
from loku_exp.runtime.programs import DEBUG, HOMELESS, ending, parser_of, said


@pytest.fixture(autouse=True)
def no_debug(monkeypatch):
    monkeypatch.setenv(DEBUG, "")


def end_with(error, capsys):
    with pytest.raises(SystemExit) as ended, ending():
        raise error
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigError(["a=1: no", "b=2: no"]), 1, ["error: a=1: no", "error: b=2: no"]),
        (HeldError("held"), 75, ["error: held"]),
        (KeyboardInterrupt(), 130, ["interrupted; the same command goes on from what was kept"]),
        (
            OSError(errno.EACCES, "Permission denied", "/a/file"),
            1,
            ["error: /a/file: Permission denied"],
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/a/file"),
            74,
            ["error: /a/file: No space left on device"],
        ),
        (StorageError("/a/file cannot be written"), 74, ["error: /a/file cannot be written"]),
        (
            RuntimeError("Could not determine home directory."),
            1,
            [f"error: a path begins with ~, and {HOMELESS}"],
        ),
    ],
)
def test_a_line_a_problem_and_an_exit_code(error, code, lines, capsys):
    found, err = end_with(error, capsys)
    assert (found, err.splitlines()) == (code, lines)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_too_little_memory_says_what_takes_less(error, capsys):
    code, err = end_with(error, capsys)
    assert code == 1
    assert "micro_batch_size=1" in err
    assert err.count("\n") == 1


def test_what_nobody_foresaw_is_one_line_that_names_the_place(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended, ending():
        folder_digest(str(tmp_path))  # a mistake of ours: it takes a Path
    err = capsys.readouterr().err
    assert ended.value.code == 70
    assert err.startswith("error: AttributeError: 'str' object has no attribute 'rglob' (cache.py:")
    assert err.count("\n") == 1


def test_what_a_users_own_function_raises_is_named_with_its_place(capsys):
    code, err = end_with(ValueError("first\nsecond"), capsys)
    assert code == 1
    assert re.match(
        r"error: end_with of .*test_programs\.py, line \d+, fails: ValueError: first second; it is",
        err,
    )
    assert err.count("\n") == 1


def test_the_place_is_in_our_code_or_the_users_not_in_a_library():
    try:
        torch.zeros(2) @ torch.zeros(3)
    except RuntimeError as error:
        (line,), _ = said(error)
    assert "test_programs.py, line" in line


def test_what_a_terminal_cannot_show_ends_nothing(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    with ending():
        print("report: /a/\u00fc \ud800")
        sys.stdout.flush()
    assert shown.getvalue() == b"report: /a/? ?\n"


def test_debug_shows_the_traceback_too(capsys, monkeypatch):
    parser_of("x", "Words.").parse_args(["--debug"])
    code, err = end_with(ConfigError("a=1: no"), capsys)
    assert code == 1
    assert "Traceback" in err
    assert err.endswith("error: a=1: no\n")


def test_a_description_keeps_its_lines():
    assert "one\n  two" in parser_of("x", "one\n  two").format_help()


def test_a_reader_that_has_ended_costs_no_line():
    """As in ``... | head``: no message, and the exit code a shell expects."""
    code = "from loku_exp.runtime.programs import ending\nwith ending():\n    while True: print('x' * 999)"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        started.stdout.read(10)
        started.stdout.close()
        said = started.stderr.read()
    assert (said, started.returncode) == (b"", 141)
