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
    as_text = {"idx": str} if suffix == ".csv" else {}  # a column of no use stays as it is
    assert [row.values for row in rows] == [
        doc | {name: kind(doc[name]) for name, kind in as_text.items()} for doc in HUB["copa"]
    ]
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
    with pytest.raises(DataError, match=r"piqa\.jsonl, line 2: \[1\] is not a JSON object"):
        local_rows("piqa", tmp_path)
    file.write_text("\n")
    with pytest.raises(DataError, match="has no rows"):
        local_rows("piqa", tmp_path)
    file.write_text("[1, 2")
    with pytest.raises(DataError, match=r"piqa\.jsonl, line 1: not JSON"):
        local_rows("piqa", tmp_path)


def test_two_files_of_one_task_are_refused(folder):
    (folder / "piqa.json").write_text(json.dumps(HUB["piqa"]))
    with pytest.raises(DataError, match=r"piqa\.jsonl and piqa\.json hold the same task"):
        local_rows("piqa", folder)


def test_further_columns_of_mixed_types_are_malformed(tmp_path):
    docs = [doc | {"note": note} for doc, note in zip(HUB["copa"], ("x", ["x"]), strict=True)]
    (tmp_path / "copa.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    with pytest.raises(DataError, match=r"copa: .*copa\.jsonl, line 1.*do not fit one table"):
        LocalStockTask("copa", local_rows("copa", tmp_path))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_of_a_csv_file_stay_text_and_its_labels_are_numbers(tmp_path, newline, encoding):
    """ "007" is an answer, not 7; the last column of a file of Windows is not "label\\r"."""
    lines = ["goal,sol1,sol2,label", "open,007,NA,1", "shut,1.0,null,0", ""]
    (tmp_path / "piqa.csv").write_bytes(newline.join(lines).encode(encoding))
    rows = local_rows("piqa", tmp_path)
    assert [row.values for row in rows] == [
        {"goal": "open", "sol1": "007", "sol2": "NA", "label": 1},
        {"goal": "shut", "sol1": "1.0", "sol2": "null", "label": 0},
    ]
    task = LocalStockTask("piqa", rows)
    assert task.doc_to_choice(task.eval_docs[0]) == ["007", "NA"]
    assert task.doc_to_target(task.eval_docs[0]) == 1


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("arc_easy", {"choices": ["a", "b"]}, "'choices' is"),
        ("arc_easy", {"choices": {"text": ["a", 1], "label": ["A", "B"]}}, "'choices' is"),
        ("hellaswag", {"endings": "four"}, "'endings' is 'four', but should be a valid list"),
        ("hellaswag", {"label": ""}, "'label' is ''"),
        ("copa", {"question": "why"}, "'question' is 'why', but should be 'cause' or 'effect'"),
        ("mathqa", {"options": 5}, "'options' is 5, but should be a valid string"),
        ("pubmedqa", {"CONTEXTS": "one text"}, "'CONTEXTS' is 'one text', but should be a valid list"),
        ("pubmedqa", {"final_decision": "Yes"}, "'final_decision' is 'Yes'"),
        ("winogrande", {"answer": 3}, "'answer' is 3, but should be '1' or '2'"),
        ("lambada_openai", {"text": 7}, "'text' is 7, but should be a valid string"),
        ("arc_easy", {"answerKey": "Z"}, "'answerKey' is 'Z', of the labels 1, 2, 3, 4)"),
        ("arc_easy", {"choices": {"text": ["a"], "label": ["A", "B"]}}, "'choices' has 1 texts and 2"),
        ("hellaswag", {"label": 4}, "'label' is 4, of 4 endings from 0)"),
        ("winogrande", {"sentence": "no blank."}, "'sentence' has no _ for an option to stand in)"),
    ],
)  # fmt: skip
def test_columns_hold_what_they_must(tmp_path, name, changed, said):
    docs = [HUB[name][0], HUB[name][1] | changed]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    with pytest.raises(DataError) as caught:
        local_rows(name, tmp_path)
    assert f"{name}.jsonl, line 2: malformed ({said}" in str(caught.value)
