"""Completion in a shell: Hydra's, which asks the command itself."""

import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "loku_exp", "-sc"]


def completed(line: str) -> list[str]:
    asked = os.environ | {"COMP_LINE": f"loku-exp {line}", "COMP_POINT": str(len(line) + 9)}
    shown = subprocess.run([*COMMAND, "query=bash"], env=asked, capture_output=True, text=True)
    return shown.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lora.ra", ["lora.rank="]),
        (
            "init=fi",
            ["init=fila", "init=fila_constant_retain", "init=fila_official", "init=fila_shuffled"],
        ),
        ("model=llama2 training.ep", ["training.epochs="]),
    ],
)
def test_options_and_keys_are_offered(line, offered):
    assert completed(line) == offered


def test_the_shell_is_told_how():
    shown = subprocess.run([*COMMAND, "install=bash"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "complete -o nospace" in shown.stdout
