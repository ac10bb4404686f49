"""The README's examples run, its commands compose, and the tables it shows are the committed ones."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from loku_exp.config.command_line import read_command_line
from loku_exp.config.compose import conf_dir, rehearse
from loku_exp.results import files as results
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


TINY = ["dataset.num_authors=4", "dataset.num_forget=1", "model.vocabulary=300"]
TINY += ["model.finetuning.epochs=2", "target.min_known=0", "evaluation.curve=none"]
TINY += ["training.epochs=1", "training.batch_size=1", "training.micro_batch_size=1"]


def section(*titles):
    """The commands of these sections, in order."""
    parts = [part for part in README.split("\n## ") if part.split("\n")[0] in titles]
    assert len(parts) == len(titles)
    return [line for part in parts for line in part.splitlines() if line.startswith("python -m")]


@pytest.mark.slow
def test_a_researchers_day(tmp_path, shared_cache):
    """Sweeps, a search, reports, a comparison, trackers and an export, as the README has them."""
    lines = section("Sweeps, clusters, searches", "Many runs: the report", "Tracking", "Export")
    assert len(lines) > 10
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for line in lines:
        line = line.split(" #")[0].replace("4,8,16,32", "4").replace("--trials 20", "--trials 2")
        runs = sorted(tmp_path.glob("outputs/toy_neo*vanilla-r4-*"))
        for name in ("RUN_A", "RUN_B", "RUN"):
            if f"outputs/{name}" in line:
                line = line.replace(f"outputs/{name}", str(runs.pop(0)))
        module, *arguments = shlex.split(line)[2:]
        arguments = [text.replace("DIR", str(tmp_path / module)) for text in arguments]
        if module.endswith("dashboard") and "--print" not in arguments:
            continue  # needs an account
        if module in ("loku_exp", "loku_exp.search"):
            arguments += [*TINY, f"cache_dir={shared_cache}"]
            arguments += ["--margin=1"] if module.endswith("search") else []
            arguments += ["seed=1"] if "tensorboard" in line else []  # else that run is there
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "outputs/report/report.html").is_file()
    assert list(tmp_path.glob("outputs/report/compare-*.csv"))
    assert list(tmp_path.glob("outputs/search-*.json"))
    assert not list(tmp_path.glob("multirun*"))  # Hydra's own folder
    assert list(tmp_path.glob("outputs/*/wandb"))
    assert list(tmp_path.glob("outputs/**/events.out.*"))
    assert (tmp_path / "loku_exp.export/adapter_model.safetensors").is_file()


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
    program = module.endswith((".report", ".search"))
    main = importlib.import_module(f"{module}.__main__" if program else module)
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
