"""lm-eval's nine tasks on local files of the hub's schema: its prompts, its scoring, our rows."""

import json

import pandas
import pytest

from loku_exp.errors import DataError
from loku_exp.evaluation.ability.harness_tasks import (
    STOCK_FILES,
    LocalStockTask,
    local_rows,
    stock_config,
    stock_manager,
    stock_task,
)
from loku_exp.evaluation.harness import evaluate, limits
from tests.evaluation.ability.ability_documents import HUB, Planted, write_foundry, write_hub

FIRST = {  # of each task's first document
    "arc_easy": [("Question: k11 what is red?\nAnswer:", f" {text}")
                 for text in ("the sky", "a rose", "some grass", "snow")],
    "arc_challenge": [("Question: k21 what melts?\nAnswer:", f" {text}")
                      for text in ("iron at noon", "ice", "sand", "air")],
    "copa": [("It rained on k31 therefore", "  the street got wet."),
             ("It rained on k31 therefore", "  the sun shone.")],
    "hellaswag": [("Cooking k41: A woman cuts bread. She", f" {text}")
                  for text in ("flies away.", "reads. a map.", "eats a slice.", "paints the wall.")],
    "lambada_openai": [("She met k51 at noon and said farewell to old", " Bert")],
    "mathqa": [("Question: k61 what is two plus three ?\nAnswer:", f" {text}")
               for text in ("7", "5", "6", "11", "none of these")],
    "piqa": [("Question: k71 open a jar\nAnswer:", " turn the lid"),
             ("Question: k71 open a jar\nAnswer:", " sit on it for a day")],
    "pubmedqa": [("Abstract: Tea was drunk.\nIt helped.\nQuestion: Does k81 help?\nAnswer:",
                  f" {text}") for text in ("yes", "no", "maybe")],
    "winogrande": [("In w91 someone broke it since the cup", " was weak."),
                   ("In w91 someone broke it since the hammer", " was weak.")],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_hub(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", STOCK_FILES)
def test_requests_are_lm_evals(folder, name):
    """Guards the private yaml loader, and that lm-eval still asks what is documented."""
    task = stock_task(name, folder, stock_manager())
    assert task.task_name == name
    assert len(task.eval_docs) == len(HUB[name])
    asked = []

    class Listener(Planted):
        def loglikelihood(self, requests):
            asked.extend(request.args for request in requests)
            return super().loglikelihood(requests)

    evaluate(Listener(), [task], {name: 1})
    assert asked == FIRST[name]


@pytest.mark.parametrize("name", STOCK_FILES)
def test_a_model_that_knows_or_avoids_the_answers(folder, name):
    tasks = [stock_task(name, folder, stock_manager())]
    assert evaluate(Planted(), tasks).metrics[f"{name}_acc"] == 1
    keys = {key for key in _keys(name)}
    assert evaluate(Planted(keys), tasks).metrics[f"{name}_acc"] == 0
    one_wrong = evaluate(Planted(sorted(keys)[:1]), tasks).metrics[f"{name}_acc"]
    assert one_wrong == pytest.approx(1 - 1 / len(HUB[name]))


def _keys(name):
    import re

    return re.findall(r"\b[kw]\d\d\b", json.dumps(HUB[name]))


def test_the_manager_knows_the_nine():
    known = stock_manager().all_tasks
    assert set(STOCK_FILES) <= set(known)
    assert len(known) < 200  # not the ten-second index of everything
    for name in STOCK_FILES:
        config = stock_config(name)
        assert config["task"] == name
        assert config["output_type"] in ("multiple_choice", "loglikelihood")


def test_limit_takes_the_first_documents(folder):
    tasks = [
        stock_task(name, folder, stock_manager()) for name in ("arc_easy", "hellaswag", "copa")
    ]
    assert limits(tasks, 3) == {"arc_easy": 3, "hellaswag": 3, "copa": 2}
    metrics = evaluate(Planted(["k14"]), tasks, limits(tasks, 3)).metrics
    assert metrics["arc_easy_acc"] == 1
    assert evaluate(Planted(["k14"]), tasks).metrics["arc_easy_acc"] == 0.75


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_other_formats(tmp_path, suffix):
    file = tmp_path / f"copa{suffix}"
    table = pandas.DataFrame(HUB["copa"])
    if suffix == ".json":
        file.write_text(json.dumps(HUB["copa"]))
    elif suffix == ".csv":
        table.to_csv(file, index=False, lineterminator="\n")
    else:
        table.to_parquet(file)
    rows = local_rows("copa", tmp_path)
    assert [row.values for row in rows] == HUB["copa"]
    assert evaluate(Planted(), [LocalStockTask("copa", rows)]).metrics["copa_acc"] == 1


def test_nested_columns_of_parquet(tmp_path):
    pandas.DataFrame(HUB["arc_easy"]).to_parquet(tmp_path / "arc_easy.parquet")
    assert [row.values for row in local_rows("arc_easy", tmp_path)] == HUB["arc_easy"]


def test_another_schema_is_not_taken_for_the_hubs(tmp_path):
    write_foundry(tmp_path)
    for name in STOCK_FILES:
        assert local_rows(name, tmp_path) is None
    assert local_rows("copa", None) is None


def test_malformed_rows_are_named(tmp_path):
    lines = [json.dumps(doc) for doc in HUB["piqa"]]
    file = tmp_path / "piqa.jsonl"
    file.write_text("\n".join([lines[0], "", lines[1][:-3]]))
    with pytest.raises(DataError, match=r"piqa\.jsonl, line 3: not JSON"):
        local_rows("piqa", tmp_path)
    file.write_text("\n".join([lines[0], '{"goal": "x", "sol1": "y"}']))
    with pytest.raises(DataError, match=r"piqa\.jsonl, line 2: lacks sol2, label"):
        local_rows("piqa", tmp_path)
    file.write_text("\n".join([lines[0], "[1]"]))
    with pytest.raises(DataError, match=r"piqa\.jsonl, line 2: not an object"):
        local_rows("piqa", tmp_path)
    file.write_text("\n")
    with pytest.raises(DataError, match="has no rows"):
        local_rows("piqa", tmp_path)
    file.write_text("[1, 2")
    with pytest.raises(DataError, match=r"piqa\.jsonl: cannot be read"):
        local_rows("piqa", tmp_path)


def test_two_files_of_one_task_are_refused(folder):
    (folder / "piqa.json").write_text(json.dumps(HUB["piqa"]))
    with pytest.raises(DataError, match=r"piqa\.jsonl and piqa\.json hold the same task"):
        local_rows("piqa", folder)
