"""What the doctor says of a machine."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from loku_exp.doctor import checks
from loku_exp.doctor.__main__ import main
from loku_exp.errors import UserError


@pytest.fixture
def said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def ask(*arguments):
        places = ["--cache-dir", str(tmp_path / "cache"), "--output-dir", str(tmp_path)]
        code = 0
        try:
            main([*places, *arguments])
        except SystemExit as ended:
            code = ended.code
        return code, capsys.readouterr().out

    return ask


def test_it_says_what_there_is_and_ends_well(said):
    code, text = said()
    assert code == 0
    assert f"torch                  {torch.__version__}" in text
    for name in ("python", "device=auto", "free memory", "cache", "model hub", "model=llama2"):
        assert f"  {name}" in text
    assert text.splitlines()[-1].startswith("nothing is wrong")


def test_programs_read_the_same(said):
    code, text = said("--json")
    findings = {finding["name"]: finding for finding in json.loads(text)}
    assert code == 0
    assert "out of reach" in findings["model hub"]["value"]
    assert findings["torch"] == {
        "part": "versions", "name": "torch", "value": torch.__version__, "wrong": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "answers", "hub"),
    [("0", True, "can be reached"), ("0", False, "out of reach"), ("1", True, "out of reach")],
)
def test_a_hub_that_is_not_to_be_left_alone_is_asked(monkeypatch, asked, answers, hub):
    def connect(*_, **__):
        if not answers:
            raise OSError("no route")
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr("loku_exp.runtime.hub.socket.create_connection", connect)
    monkeypatch.setattr("loku_exp.runtime.hub.getproxies", dict)
    monkeypatch.setenv("HF_HUB_OFFLINE", asked)
    assert checks._services()[0].value.startswith(hub)
    assert checks.os.environ["HF_HUB_OFFLINE"] == asked


def test_sizes_are_those_of_the_models(said, monkeypatch):
    monkeypatch.setattr(checks, "free_memory", lambda _: int(20e9 / checks.USABLE))
    monkeypatch.setattr(checks, "resolve_dtype", lambda *_: "bfloat16")
    lines = {line.split()[0]: line for line in said()[1].splitlines() if "model=" in line}
    # 1.418 e9 weights of 2 and of 16 bytes; SmolLM2 has its head tied: 134.5 M and not 162.8
    assert "1,418 M parameters: 2.8 GB fit" in lines["model=phi"]
    assert "22.7 GB do NOT fit" in lines["model=phi"]
    assert "135 M parameters: 269.0 MB fit" in lines["model=smollm2"]
    assert "13.5 GB fit" in lines["model=llama2"]
    assert "model=hf" not in lines


def test_what_is_wrong_is_said_with_the_way_out(said, monkeypatch, tmp_path):
    def refused(key: str, _: str) -> None:
        if key == "output_dir":
            raise UserError(f"{key}=/x: name another one: {key}=DIR")

    monkeypatch.setattr(checks, "check_place", refused)
    entry = tmp_path / "cache" / "models" / "0123456789abcdef"
    entry.mkdir(parents=True)
    code, text = said()
    assert code == 1
    wrong = [line for line in text.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 2
    assert "output_dir=DIR" in wrong[0]
    assert "1 damaged: python -m loku_exp.cache --cache-dir /" in wrong[1]
    assert wrong[1].endswith(" --state damaged --prune")


def test_a_place_is_tried_whatever_its_mode_says(tmp_path):
    """By its mode root may write in /proc."""
    places = checks._places(Path("/proc/x"), tmp_path / "new" / "folder")
    assert "cache_dir=/proc/x: /proc is not a folder that can be written to" in places[0].wrong
    assert not places[1].wrong
    assert not list(tmp_path.iterdir())
