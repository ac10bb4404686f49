"""Every command of the pages composes, is understood, or runs."""

import importlib
import re
import sys
import tomllib
from functools import partialmethod
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from loku_exp.config.command_line import read_command_line
from loku_exp.config.compose import rehearse
from tests.docs.pages import BLOCKS, EXAMPLES, ROOT, SCRIPTS, SHOWN, TYPED, Command
from tests.helpers import tdec_folder


def check_run(command: Command, tmp_path: Path, monkeypatch, **_) -> None:
    """A run or a sweep passes the rehearsal, placeholders replaced."""
    place = tdec_folder(tmp_path / "place")  # stands in for the reader's
    monkeypatch.chdir(ROOT / command.folder)
    monkeypatch.syspath_prepend("")
    words = [word.replace("DIR", str(place)) for word in command.words[3:]]
    words = [word.replace("outputs/RUN", str(place)) for word in words]
    line = read_command_line(words)
    if line is None:
        assert {"--help", "--cfg"} & set(words)  # Hydra answers
        return
    for job in line.jobs()[-4:]:  # test_tdec_runs.py composes all jobs of each preset
        problems = [p for p in rehearse(job, line.config_dir) if "lacks full.json" not in p]
        assert problems == []  # but that the place is no TOFU


def check_torchrun(command: Command, **given) -> None:
    from torch.distributed.run import get_args_parser

    arguments = get_args_parser().parse_args(command.words[1:])
    assert (arguments.module, arguments.training_script) == (True, "loku_exp")
    words = ("python", "-m", "loku_exp", *arguments.training_script_args)
    check_run(command._replace(words=words), **given)


def check_other(command: Command, tmp_path: Path, monkeypatch, capsys) -> None:
    """It is understood, and ends because the folders and accounts it names stand for the reader's."""
    module, *arguments = command.words[2:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    main = importlib.import_module(module)
    if hasattr(main, "__path__"):
        main = importlib.import_module(f"{module}.__main__")
    if module.endswith("lm_eval"):  # the index of its own tasks takes ten seconds
        none = partialmethod(TaskManager.__init__, include_defaults=False)
        monkeypatch.setattr(TaskManager, "__init__", none)
        monkeypatch.setattr("lm_eval.utils.setup_logging", lambda: None)
    if module.endswith("search"):
        monkeypatch.setattr(main, "_go_on", lambda *_: None)  # no trial: none forgets enough
    if "--print" in arguments:
        main.main()
        assert capsys.readouterr().out.startswith("Unlearning (")
        return
    if module.endswith(".doctor"):  # needs nothing, and finds nothing wrong
        main.main()
        assert "nothing is wrong" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1  # wrong usage ends with 2
    assert "error: " in capsys.readouterr().err


def check_program(command: Command, **_) -> None:
    """A module of benchmarks or tests, which their own tests and people run."""
    module = command.words[2].replace(".", "/")
    assert (ROOT / f"{module}.py").is_file() or (ROOT / module / "__main__.py").is_file()


def check_script(command: Command, **_) -> None:
    """An example, which runs in a test below."""
    assert (ROOT / command.folder / command.words[1]).relative_to(EXAMPLES).name in SCRIPTS


def check_make(command: Command, **_) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in command.words[1:]:
        variable, given, _ = word.partition("=")
        pattern = rf"^{variable} \?=" if given else rf"^{word}:.*##"
        assert re.search(pattern, makefile, flags=re.MULTILINE), word


def check_pip(command: Command, **_) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = iter(command.words[2:])
    for word in words:
        if word == "-c":
            assert (ROOT / next(words)).is_file()
        elif match := re.fullmatch(r"(?:\.|loku_exp)(?:\[([\w,]+)\])?", word):
            assert set((match[1] or "dev").split(",")) <= project["optional-dependencies"].keys()
        else:
            assert word in ("flash-attn",)  # where the reader's GPU has it


def check_tests(command: Command, **_) -> None:
    assert all((ROOT / word).exists() for word in command.words if word.startswith("tests/"))


def nothing(command: Command, **_) -> None:
    """Its parts are tested elsewhere."""


KINDS = {
    r"python -m loku_exp( |$)": check_run,
    r"torchrun ": check_torchrun,
    r"python -m loku_exp\.\w": check_other,
    r"python -m (benchmarks|tests)": check_program,
    r"python \w+\.py": check_script,
    r"make ": check_make,
    r"pip install ": check_pip,
    r"\.venv/bin/python -m pytest ": check_tests,
    r"source \.venv/bin/activate$": nothing,  # as the Makefile names it
    r"\.venv/bin/pre-commit install$": nothing,  # its hooks are what make check runs
    r"tensorboard --logdir outputs$": nothing,  # its files are read back in test_tracking.py
    r"TRACKIO_DIR=outputs/trackio trackio show ": nothing,  # and its store, too
    r"wandb sync$": nothing,  # the offline run's files are read back there, too
}


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.line)
def test_command_is_valid(command, tmp_path, monkeypatch, capsys):
    kinds = [check for kind, check in KINDS.items() if re.match(kind, command.line)]
    assert len(kinds) == 1, "no test knows this kind of command"
    kinds[0](command, tmp_path=tmp_path, monkeypatch=monkeypatch, capsys=capsys)


def test_lines_of_bash_are_commands_and_other_blocks_hold_none():
    assert len(SHOWN) > 40
    for block in BLOCKS:
        assert block.language in ("bash", "python", "yaml", "text"), block.text
        if block.language == "text":
            assert not re.search(rf"^{TYPED}", block.text, flags=re.MULTILINE), block.text
