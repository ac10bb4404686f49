"""The README's examples run, its commands compose, and the tables it shows are the committed ones."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from loku_exp import results
from loku_exp.command_line import read_command_line
from loku_exp.compose import conf_dir, rehearse
from tests.helpers import tdec_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", README, flags=re.DOTALL))
RUNS = re.findall(r"<!-- run -->\n```\n(.*?)\n```", README, flags=re.DOTALL)
LINES = [
    line.split(" #")[0].strip()
    for line in README.splitlines()
    if re.match(r"(make|pip|python -m|tensorboard|torchrun|wandb) ", line)
]
COMMANDS = [
    re.sub(r"^torchrun .*-m loku_exp ", "python -m loku_exp ", line)
    for line in LINES
    if re.match(r"(python|torchrun .*) -m loku_exp ", line)
]
OTHERS = [line for line in LINES if line.startswith("python -m loku_exp.")]

GROUPS = ["model", "dataset", "loss", "init", "lora", "launcher", "tracking", "experiment"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A user's folder with the files of the README."""
    folder = tmp_path_factory.mktemp("user")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", RUNS)
def test_worked_example_runs(mine, shared_cache, line, tmp_path):
    quick = ["model.finetuning.epochs=3", "training.epochs=1", "target.min_known=0"]
    if "dataset=" not in line:
        quick += ["dataset.num_authors=8", "dataset.num_forget=2"]
    arguments = [sys.executable, *shlex.split(line)[1:], *quick, f"output_dir={tmp_path}"]
    arguments += [f"cache_dir={shared_cache}", "evaluation.curve=none"]
    result = subprocess.run(arguments, cwd=mine, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    choices = results.read(folder).run.choices
    group, name = re.search(r" (\w+)=(\w+)", line).groups()
    assert choices[group] == name


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_command_is_valid(line, tmp_path):
    """Each command of the README passes the rehearsal, placeholders replaced."""
    if "--config-dir mine" in line or "--help" in line or "--cfg" in line:
        return  # run by the test above, or answered by Hydra
    folder = tdec_folder(tmp_path / "folder")  # stands in for the user's
    arguments = shlex.split(line.replace("DIR", str(folder)))[3:]
    command = read_command_line(arguments)
    assert command is not None
    for job in command.jobs()[-4:]:  # test_tdec_runs.py composes all jobs of each preset
        problems = [p for p in rehearse(job) if "lacks full.json" not in p]  # it has no TOFU
        assert problems == []


@pytest.mark.parametrize("line", OTHERS)
def test_other_command_is_valid(line, tmp_path, monkeypatch, capsys):
    """Each is understood; it ends because the folders and accounts it names stand for the reader's."""
    module, *arguments = shlex.split(line)[2:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    main = importlib.import_module(f"{module}.__main__" if module.endswith("report") else module)
    if module.endswith("search"):
        monkeypatch.setattr(main, "_go_on", lambda *_: None)  # no trial: none forgets enough
    if "--print" in arguments:
        main.main()
        assert capsys.readouterr().out.startswith("{")
        return
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1  # wrong usage ends with 2
    assert "error: " in capsys.readouterr().err


def test_every_command_shown_is_tried():
    """A line of a code block is one of the commands above, or named here with who tries it."""
    elsewhere = {
        "make run": "the embedded default, in test_run.py",
        "tensorboard --logdir outputs": "its files are read back in test_tracking.py",
    }
    runs = {line for line in LINES if re.match(r"(python|torchrun .*) -m loku_exp ", line)}
    assert set(LINES) == runs | set(OTHERS) | set(elsewhere)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_is_named(group):
    for file in (conf_dir() / group).glob("*.yaml"):
        assert f"`{file.stem}`" in README, file.name


@pytest.mark.parametrize("file", ["benchmarks/toy_grid.md"])
def test_tables_are_the_committed_ones(file):
    table = [line for line in (ROOT / file).read_text().splitlines() if line.startswith("|")]
    assert "\n".join(table) in README
