"""The command: lm-eval's own, with our names known; and one line for what is wrong."""

import json
import sys
import tomllib
from functools import partialmethod
from importlib import import_module
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from loku_exp.errors import ConfigError, DataError
from loku_exp.lm_eval import TASKS
from loku_exp.lm_eval.__main__ import main
from loku_exp.lm_eval.model import LokuLM
from loku_exp.lm_eval.words import in_lm_evals_words

EXAMPLE = Path(__file__).parents[2] / "examples/my_lm_eval_task"


@pytest.fixture
def command(monkeypatch, own_logging):
    """Type a command line; lm-eval's own tasks are left out, for their index takes ten seconds."""
    without = partialmethod(TaskManager.__init__, include_defaults=False)
    monkeypatch.setattr(TaskManager, "__init__", without)
    monkeypatch.setattr("lm_eval.utils.setup_logging", lambda: None)  # of this process
    monkeypatch.delenv("LOKU_DATA", raising=False)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["lm_eval", *map(str, arguments)])
        main()

    return command


def test_results_and_samples_are_written(command, folder, tofu, tmp_path, capsys):
    command(
        "--model", "loku", "--model_args", f"pretrained={folder},dtype=float32",
        "--tasks", "tofu_forget10,tofu_utility", "--metadata", f"dataset.path={tofu}",
        "evaluation.rows=all", "--limit", 2, "--output_path", tmp_path, "--log_samples",
    )  # fmt: skip
    assert "tofu_utility" in capsys.readouterr().out
    (file,) = tmp_path.rglob("results_*.json")
    found = json.loads(file.read_text())
    assert found["results"]["tofu_forget10"]["n,none"] == 2
    assert found["group_subtasks"]["tofu_utility"] == ["tofu_retain", "tofu_authors", "tofu_facts"]
    assert f"dataset.path={tofu}" in found["configs"]["tofu_retain"]["metadata"]["overrides"]
    (samples,) = tmp_path.rglob("samples_tofu_forget10_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [row["n"]["row"] for row in rows] == [0, 1]
    assert sum(row["prob"] for row in rows) / 2 == found["results"]["tofu_forget10"]["prob,none"]


def test_data_by_the_environment(command, folder, tofu, tmp_path, monkeypatch, capsys):
    (tmp_path / "tofu").symlink_to(tofu)
    monkeypatch.setenv("LOKU_DATA", str(tmp_path))
    asked = ["--model", "loku", "--model_args", f"pretrained={folder}", "--limit", 1, "--tasks"]
    command(*asked, "tofu_facts")
    assert "tofu_facts" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        command(*asked, "tdec")
    assert ended.value.code == 1
    assert f"LOKU_DATA={tmp_path}: it must have a folder 'tdec'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "more", "said"),
    [
        ("tofu_forget20", [], "--tasks tofu_forget20: no such task; did you mean 'tofu_forget"),
        ("tdec", [], "dataset.path=data/tdec: no such folder. TDEC is not on the hub"),
        ("tofu_facts", ["--metadata", "dataset.path=/nowhere"], "dataset.path=/nowhere: no such folder"),
        ("tofu_facts", ["--metadata", "dataset.pth=/x"], "dataset.pth: no such key; did you mean"),
        ("tofu_facts", ["--metadata", "evalution.rows=all"], "evalution.rows: no such key; did you mean"),
        ("tofu_facts", ["--model_args", "dtyp=float32"], "dtyp=float32: --model loku has no such word"),
        ("tofu_facts", ["--num_fewshot", 2], "--num_fewshot=2: tofu_facts do not follow it"),
        ("tofu_facts", ["--apply_chat_template"], "--apply_chat_template=True: tofu_facts do not"),
        ("tofu_facts", ["--predict_only", "--output_path", "."], "--predict_only: tofu_facts are measured"),
        ("tofu_facts", ["--log_samples"], "Specify --output_path if providing --log_samples"),
        ("tofu_facts", ["--model", "hf", "--model_args", "pretrained=./no"], "./no"),
        ("tofu_facts", ["--model", "dummy"], "DummyLM cannot be asked for tokens by their ids"),
    ],
)  # fmt: skip
def test_one_line_for_what_is_wrong(command, folder, tofu, capsys, tasks, more, said):
    given = ["--metadata", f"dataset.path={tofu}"] if tasks == "tofu_facts" else []
    with pytest.raises(SystemExit) as ended:
        command(
            "--model", "loku", "--model_args", f"pretrained={folder}", "--tasks", tasks, *given, *more
        )  # fmt: skip
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


def test_the_example_of_a_task_of_ones_own(command, folder, tmp_path, monkeypatch, capsys):
    row = {"answer": "a2", "paraphrased_answer": "p3", "perturbed_answer": ["w4", "q1"]}
    for name in ("my", "rest"):
        rows = [row | {"question": f"{name} {number}?"} for number in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    command(
        "--model", "loku", "--model_args", f"pretrained={folder}", "--include_path", EXAMPLE,
        "--tasks", "my_forget_set", "--output_path", tmp_path / "out",
    )  # fmt: skip
    (file,) = tmp_path.rglob("results_*.json")
    found = json.loads(file.read_text())["results"]["my_forget_set"]
    assert found["n,none"] == 3
    assert {"prob,none", "rouge,none", "truth_ratio,none"} <= found.keys()


def test_every_task_yaml_is_of_a_suite_and_named_as_its_file():
    names = {
        name for name in TaskManager(include_path=str(TASKS), include_defaults=False).all_tasks
    }
    assert names == {file.stem for file in TASKS.glob("*.yaml")}


def test_a_later_lm_eval_finds_the_model_by_its_entry_point():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["lm_eval.models"]["loku"].partition(":")
    assert getattr(import_module(module), name) is LokuLM


def test_options_that_tasks_do_not_follow_are_refused_wherever_they_stand(
    command, folder, tmp_path, capsys
):
    """In a file of settings they went unheard, and so they did by a pattern and a task of one's own."""
    settings = tmp_path / "settings.yaml"
    settings.write_text("tasks: tofu_facts\nnum_fewshot: 3\n")
    model = ["--model", "loku", "--model_args", f"pretrained={folder}"]
    fewshot, file = ["--num_fewshot", 2], EXAMPLE / "my_forget_set.yaml"
    own = ["--include_path", EXAMPLE, "--tasks", "my_forget_set", *fewshot]
    for given, said in (
        (["--config", settings], "--num_fewshot=3: tofu_facts do not follow it"),
        (own, "--num_fewshot=2: my_forget_set do not follow it"),
        (["--tasks", "tofu_fa*", *fewshot], "--num_fewshot=2: tofu_facts do not follow it"),
        (["--tasks", EXAMPLE, *fewshot], "--num_fewshot=2: my_forget_set do not follow it"),
        (["--tasks", file, *fewshot], "--num_fewshot=2: my_forget_set do not follow it"),
        (["--config", tmp_path / "none.yaml"], "Config file not found"),
    ):
        with pytest.raises(SystemExit) as ended:
            command(*model, *given)
        assert ended.value.code == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("row 859 of 'target_training' has 279 tokens", False),
        ("model.path=x: no such folder", False),  # said as pretrained=x, which --model_args takes
        ("dataset.path=x: no such folder", True),
    ],
)
def test_where_keys_go_is_said_where_one_is_named(text, told):
    with pytest.raises(ConfigError) as raised, in_lm_evals_words("here"):
        raise DataError(text)
    assert ("here" in raised.value.problems) == told
