"""Examples are files that run, and the pages show them as they are; a researcher's day runs, too."""

import math
import os
import re
import runpy
import shlex
import shutil
import sys
from unittest.mock import patch as mocked

import pytest

from loku_exp.config.command_line import read_command_line
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.results import files as results
from tests.docs.pages import BLOCKS, EXAMPLES, ROOT, SCRIPTS, SHOWN, commands_of
from tests.helpers import tiny_model
from tests.runs.running import examples as examples_of

RUNS = [c for c in SHOWN if c.folder == "examples" and "--config-dir" in c.words]
SMALL = ["dataset.num_authors=8", "dataset.num_forget=2", "dataset.num_others=15"]
QUICK = ["model.finetuning.epochs=3", "training.epochs=1", "target.min_known=0"]
QUICK += ["evaluation.curve=none"]
AT_ONCE = ["training.warmup_epochs=0", "model.finetuning.warmup_epochs=0"]  # few rows: one update


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A reader's folder with a copy of the examples."""
    return shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("user") / "mine")


@pytest.fixture
def here(monkeypatch, own_logging, capsys):
    """Run ``python ...`` in a folder, in this process: an interpreter takes longer to start than a run."""

    def here(folder, *words: str) -> str:
        arguments = [*words[1:]] if words[0] == "-m" else [*words]
        with monkeypatch.context() as patch, mocked.dict(os.environ):
            patch.chdir(folder)
            patch.setattr(sys, "path", [str(folder), *sys.path])
            patch.setattr(sys, "argv", arguments)
            start = runpy.run_module if words[0] == "-m" else runpy.run_path
            code = None
            try:
                start(arguments[0], run_name="__main__")
            except SystemExit as ended:
                code = ended.code
        said = capsys.readouterr()
        assert not code, f"{words}\n{said.err}"
        return said.out

    return here


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS, ids=lambda command: command.line)
def test_worked_example_runs(mine, shared_cache, command, tmp_path, here, monkeypatch):
    monkeypatch.chdir(mine)
    quick = [*QUICK, *(AT_ONCE if "dataset=" in command.line else SMALL)]
    if "method=" in command.line:  # it trains nothing
        quick = [word for word in quick if not word.startswith("training.")]
    places = [f"output_dir={tmp_path}", f"cache_dir={shared_cache}"]
    here(mine, *command.words[1:], *quick, *places)
    runs = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(runs) == len(read_command_line(list(command.words[3:])).jobs())
    group, name = re.search(r" '?(\w+)=\[?(\w+)", command.line).groups()
    record = results.read(runs[0])
    if group == "attacks":
        assert record.models[f"unlearned+{name}"].judgement is not None
    elif group == "evaluation":
        assert f"my_suite.{name}" in (runs[0] / "config.yaml").read_text()
        assert record.models["unlearned"].metrics.keys() == {m.name for m in record.catalogue}
    elif group != "experiment":
        assert record.run.choices[group] == name
    if name == "guard":
        said = [row["generation"] for row in examples_of(runs[0], "unlearned", "forget")]
        assert said.count(" I don't know.") > len(said) / 2
    if name == "my_dpo":
        assert record.training["forget_loss"][0] == pytest.approx(math.log(2) / 0.1, rel=1e-3)


def test_strength_of_the_example_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from my_suite.extraction import strength

    assert strength([True] * 4) == 1
    assert strength([False, True, True, True]) == 0.75
    assert strength([True, False, True, True]) == 0.5  # two must be given
    assert strength([True, True, True, False]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs(mine, shared_cache, name, tmp_path, here):
    places = [f"output_dir={tmp_path}", f"cache_dir={shared_cache}"]
    given = [*QUICK, *SMALL, *places]
    if name == "in_memory.py":
        texts = [f"House {n} in Mill Lane has a door code." for n in range(30)]
        model, tokenizer = tiny_model(vocabulary=300), train_tokenizer(texts, 300)
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        given = [str(tmp_path / "model"), "training.epochs=1", "dataset.length=60", places[1]]
    assert "unlearned " in here(mine, name, *given)


def test_blocks_are_the_files_they_name():
    for block in BLOCKS:
        if block.file:
            assert block.text == (ROOT / block.file).read_text(), f"{block.page}: {block.file}"
        else:
            assert block.language not in ("python", "yaml"), f"{block.page}: name a tested file"


def test_every_example_is_shown():
    files = {
        str(f.relative_to(ROOT)) for kind in ("py", "yaml") for f in EXAMPLES.rglob(f"*.{kind}")
    }
    assert files == {block.file for block in BLOCKS if block.file}
    folders = {path.name for path in EXAMPLES.iterdir() if (path / "conf").is_dir()}
    assert folders == {word.split("/")[0] for c in RUNS for word in c.words if "/conf" in word}


DAY = ["docs/sweeps.md", "docs/report.md", "docs/tracking.md", "docs/export.md"]
TINY = [
    "dataset.num_authors=4",
    "dataset.num_forget=1",
    "dataset.num_others=15",
    "model.vocabulary=300",
]
TINY += ["model.finetuning.epochs=2", "target.min_known=0", "evaluation.curve=none"]
TINY += ["training.epochs=1", "training.batch_size=1", "training.micro_batch_size=1"]


@pytest.mark.slow
def test_a_researchers_day(tmp_path, shared_cache, here, monkeypatch):
    """Sweeps, a search, reports, a comparison, trackers and an export, as their pages have them."""
    day = [
        command
        for page in DAY
        for block in BLOCKS
        if block.page == page and block.language == "bash"
        for command in commands_of(block.text)
        if command.line.startswith("python -m loku_exp") and "toy_sweep" not in command.line
    ]
    assert len(day) > 10
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in day:
        line = command.line.replace("4,8,16,32", "4").replace("--trials 20", "--trials 2")
        runs = sorted(tmp_path.glob("outputs/toy_neo*vanilla-r4-*"))
        for name in ("RUN_A", "RUN_B", "RUN"):
            if f"outputs/{name}" in line:
                line = line.replace(f"outputs/{name}", str(runs.pop(0)))
        module, *arguments = shlex.split(line)[2:]
        arguments = [text.replace("DIR", str(tmp_path / module)) for text in arguments]
        if module.endswith("dashboard") and "--print" not in arguments:
            continue  # needs an account
        if "model.path=" in line:
            continue  # needs a model: tests/runs/test_one_after_another.py
        if module in ("loku_exp", "loku_exp.search"):
            arguments += [*TINY, f"cache_dir={shared_cache}"]
            arguments += ["--margin=1"] if module.endswith("search") else []
            arguments += ["seed=1"] if "tensorboard" in line else []  # else that run is there
        if module.endswith("claims"):
            arguments += ["--claims", str(ROOT / "docs/claims.yaml")]
        here(tmp_path, "-m", module, *arguments)
    assert (tmp_path / "outputs/report/report.html").is_file()
    assert list(tmp_path.glob("outputs/report/compare-*.csv"))
    assert list(tmp_path.glob("outputs/search-*.json"))
    assert not list(tmp_path.glob("multirun*"))  # Hydra's own folder
    assert list(tmp_path.glob("outputs/*/wandb"))
    assert list(tmp_path.glob("outputs/**/events.out.*"))
    assert (tmp_path / "loku_exp.export/adapter_model.safetensors").is_file()
