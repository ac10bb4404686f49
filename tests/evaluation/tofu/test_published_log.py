"""Published numbers: logs of the TOFU authors, scored by the functions of the tasks."""

import json
import subprocess
import sys

import pytest

from loku_exp.data.records import IGNORED, Example, Sequence
from loku_exp.errors import DataError
from loku_exp.evaluation.differences import half_widths
from loku_exp.evaluation.halves import metrics_of_halves, split_examples
from loku_exp.evaluation.tofu.judge import aggregate
from loku_exp.evaluation.tofu.log_rows import check_same_rows
from loku_exp.evaluation.tofu.published_log import (
    FILES,
    compare_logs,
    evaluation_of_log,
    read_log,
    score_log,
)
from loku_exp.evaluation.tofu.suite import rouge_recall
from tests.helpers import tiny_suite

NAMES = {
    "authors_rouge": "ROUGE Real Authors",
    "authors_prob": "Prob. Real Authors",
    "authors_truth_ratio": "Truth Ratio Real Authors",
    "facts_rouge": "ROUGE Real World",
    "facts_prob": "Prob. Real World",
    "facts_truth_ratio": "Truth Ratio Real World",
    "retain_rouge": "ROUGE Retain",
    "retain_prob": "Prob. Retain",
    "retain_truth_ratio": "Truth Ratio Retain",
    "forget_rouge": "ROUGE Forget",
    "forget_prob": "Prob. Forget",
    "forget_truth_ratio": "Truth Ratio Forget",
    "model_utility": "Model Utility",
}
SPLITS = ("full", "retain90", "retain95", "retain99")


def log_file(folder, split):
    return (
        folder / "tofu_eval_logs" / f"ft_epoch5_lr2e-05_phi_{split}_wd0.01.eval_log_aggregated.json"
    )


@pytest.mark.parametrize("split", SPLITS)
def test_scores_equal_the_official_aggregation(loku_data, split):
    expected = json.loads((loku_data / "tofu_eval_logs/reference_numbers.json").read_text())
    expected = expected["models"][f"ft_epoch5_lr2e-05_phi_{split}_wd0.01"]
    scores = score_log(read_log(log_file(loku_data, split)))
    for ours, theirs in NAMES.items():
        assert scores[ours] == pytest.approx(expected[theirs], rel=1e-9), ours


def test_forget_quality_equals_the_official_one(loku_data):
    full, retain90 = (read_log(log_file(loku_data, split)) for split in ("full", "retain90"))
    compared = compare_logs(full, retain90)
    assert compared["forget_quality"] == pytest.approx(2.1942743021891237e-16, rel=1e-9)
    assert compared["forget_ks"] == pytest.approx(0.3466666666666667, rel=1e-9)
    assert compared["forget_n"] == 300
    assert compared["forget_shift"] > 0  # the full model knows the forget set
    assert compare_logs(retain90, retain90)["forget_quality"] == 1.0


def test_logs_of_different_questions_are_not_compared(loku_data):
    full, retain95 = (read_log(log_file(loku_data, split)) for split in ("full", "retain95"))
    with pytest.raises(DataError, match="300 and 200 rows, 100 questions in common"):
        compare_logs(full, retain95)


@pytest.mark.parametrize("split", SPLITS)
def test_rouge_of_stored_generations_equals_the_stored_one(loku_data, split):
    for rows in read_log(log_file(loku_data, split)).values():
        for row in rows:
            assert rouge_recall(row.answer, row.generation) == row.rouge


def test_command_prints_json(loku_data):
    command = [sys.executable, "-m", "loku_exp.score_log", str(log_file(loku_data, "full"))]
    command += ["--reference", str(log_file(loku_data, "retain90"))]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {"forget_quality", "forget_ks", "forget_n", "model_utility", *NAMES} <= printed.keys()


def tiny_log(as_list: bool) -> dict:
    def columns(wrong):
        rows = {
            "avg_gt_loss": [0.5, 1.0],
            "num_token_gt": [3, 4],
            "avg_paraphrased_loss": [0.7, 1.1],
            "num_token_paraphrased": [3, 4],
            "average_perturb_loss": [[1.0] * wrong, [2.0] * wrong],
            "num_token_perturb": [[3] * wrong, [4] * wrong],
            "rougeL_recall": [0.25, 0.75],
            "generated_text": [["q1", "g", "a"], ["q2", "g", "a"]],
        }
        return (
            rows if as_list else {k: {str(i): v for i, v in enumerate(r)} for k, r in rows.items()}
        )

    return {file: columns(5 if name in ("forget", "retain") else 3) for name, file in FILES.items()}


def test_a_log_may_hold_lists_or_dictionaries(tmp_path):
    scores = []
    for as_list in (True, False):
        file = tmp_path / "log.json"
        file.write_text(json.dumps(tiny_log(as_list)))
        scores.append(score_log(read_log(file)))
    assert scores[0] == scores[1]
    assert scores[0]["forget_rouge"] == 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "line 1: not JSON"),
        ("{}", "lacks 'eval_log_forget.json'"),
        ("[]", "not a TOFU evaluation log"),
    ],
)
def test_other_files_are_refused(tmp_path, content, said):
    file = tmp_path / "log.json"
    file.write_text(content)
    with pytest.raises(DataError, match=said):
        read_log(file)
    result = subprocess.run(
        [sys.executable, "-m", "loku_exp.score_log", str(file)], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def test_a_log_in_another_place_or_encoding(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "log.json").write_text(json.dumps(tiny_log(as_list=True)), encoding=encoding)
        assert read_log("~/log.json").keys() == FILES.keys()
    with pytest.raises(DataError, match=r"no file .*none\.json"):
        read_log(tmp_path / "none.json")
    with pytest.raises(DataError, match="is a folder, not a file"):
        read_log(tmp_path)
    (tmp_path / "log.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        read_log(tmp_path / "log.json")


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("avg_gt_loss", NAN), ("avg_gt_loss", INFINITY), ("avg_gt_loss", None), ("avg_gt_loss", "0.5"),
        ("avg_gt_loss", True), ("avg_gt_loss", -0.1), ("avg_gt_loss", 1e300), ("avg_gt_loss", [0.5]),
        ("avg_paraphrased_loss", NAN), ("average_perturb_loss", [1.0, NAN]), ("average_perturb_loss", []),
        ("average_perturb_loss", 1.0), ("num_token_gt", 2.5), ("num_token_gt", 0),
        ("num_token_perturb", [3, "4"]),
        ("rougeL_recall", 1.5), ("rougeL_recall", NAN), ("generated_text", ["q", "g"]),
        ("generated_text", ["q", "g", None]), ("generated_text", "qga"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_with_metric_and_row(tmp_path, metric, value, as_list):
    """One NaN would make every mean a NaN, which is no JSON, and a shift that looks plausible."""
    log, part = tiny_log(as_list), FILES["retain"]
    log[part][metric][1 if as_list else "1"] = value
    file = tmp_path / "log.json"
    file.write_text(json.dumps(log))
    with pytest.raises(DataError) as caught:
        read_log(file)
    assert f"{file}, '{part}', '{metric}', row 1: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_needed_may_have_overflowed(tmp_path):
    """A collapsed model's stored truth ratio is Infinity; ours is made of the losses."""
    log = tiny_log(as_list=True)
    log[FILES["forget"]]["truth_ratio"] = [INFINITY, NAN]
    (tmp_path / "log.json").write_text(json.dumps(log))
    assert all(0 <= value <= 1 for value in score_log(read_log(tmp_path / "log.json")).values())


@pytest.mark.parametrize(
    "rows", [{"0": 0.5, "00": 0.5, "1": 1.0}, {"0": 0.5, "x": 1.0}, {"-1": 0.5}]
)
def test_rows_are_different_numbers(tmp_path, rows):
    log = tiny_log(as_list=False)
    log[FILES["facts"]]["avg_gt_loss"] = rows
    (tmp_path / "log.json").write_text(json.dumps(log))
    with pytest.raises(DataError, match="'avg_gt_loss': rows must be different numbers from 0"):
        read_log(tmp_path / "log.json")


def spoiled(spoil) -> dict:
    content = tiny_log(as_list=False)
    spoil(content, FILES["forget"])
    return content


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda log, part: log.update({part: [1, 2]}), "is not a table of metrics by row"),
        (lambda log, part: log[part]["rougeL_recall"].pop("1"), "no rougeL_recall for row 1"),
        (lambda log, part: log[part]["avg_gt_loss"].pop("0"), "no avg_gt_loss for row 0"),
        (lambda log, part: log[part].update(avg_gt_loss=3), "is not a table of metrics by row"),
        (lambda log, part: log[part].pop("num_token_gt"), "lacks num_token_gt"),
        (
            lambda log, part: log[part]["generated_text"].update({"0": ["q"]}),
            "'generated_text', row 0: ",
        ),
    ],
)
def test_parts_that_are_not_whole_are_refused(tmp_path, spoil, said):
    file = tmp_path / "log.json"
    file.write_text(json.dumps(spoiled(spoil)))
    with pytest.raises(DataError, match=said):
        read_log(file)


def test_a_log_is_of_four_sets_and_other_data_have_fewer():
    """A dataset of one's own has no real authors: it ended in a KeyError."""
    with pytest.raises(DataError, match="TOFU's four sets, and this dataset has no set 'authors'"):
        check_same_rows({"authors": []}, {"forget": [], "retain": []}, "LOG")


def records_of(file, first=0):
    """Records that are a log's own rows: its questions, answers and numbers of labelled tokens."""

    def text(count):
        return Sequence((0,) * (count + 1), (IGNORED, *(0,) * count))

    def record(name, row):
        answer, *others = map(text, row.tokens)
        alternatives = {"paraphrase": tuple(others[:1]), "wrong": tuple(others[1:])}
        place = first + row.row
        return Example(
            place, f"author {place // 20}", name, (0,), answer, alternatives, row.prompt, row.answer
        )

    return {name: [record(name, row) for row in rows] for name, rows in read_log(file).items()}


def test_a_logs_rows_say_all_that_the_log_says(loku_data):
    """They had no more than log ratios: no interval, no half and no search knew the reference."""
    file = log_file(loku_data, "retain90")
    found = evaluation_of_log(str(file), records_of(file), "geometric")
    assert aggregate(found.examples) == found.metrics == score_log(read_log(file))
    widths = half_widths(found.examples, [r | {"prob": 0.5} for r in found.examples], tiny_suite())
    assert {f"{name}_prob" for name in FILES} <= widths.keys()


@pytest.mark.parametrize(
    ("kind", "utility"), [("geometric", 0.5319909117798325), ("arithmetic", 0.5130011800696112)]
)
def test_its_truth_ratio_is_of_the_kind_that_the_run_has(loku_data, kind, utility):
    """Both are of the official code: ``aggregate_eval_stat.py`` and ``utils.py``."""
    file = log_file(loku_data, "retain90")
    found = evaluation_of_log(str(file), records_of(file), kind)
    assert found.metrics["model_utility"] == pytest.approx(utility, rel=1e-9)


def test_its_rows_go_by_the_numbers_of_this_runs(tmp_path):
    file = tmp_path / "log.json"
    file.write_text(json.dumps(tiny_log(as_list=True)))
    found = evaluation_of_log(str(file), records_of(file, first=100), "geometric")
    assert {row["row"] for row in found.examples} == {100, 101}


@pytest.mark.parametrize("left_out", [(), ("group",)])
def test_halves_compare_the_same_rows(loku_data, left_out):
    file = log_file(loku_data, "retain90")
    theirs = evaluation_of_log(str(file), records_of(file), "geometric").examples
    ours = [row | {"log_ratio": row["log_ratio"] + row["row"] % 2} for row in theirs]
    reference = [{k: v for k, v in row.items() if k not in left_out} for row in theirs]
    halves = metrics_of_halves(ours, reference, tiny_suite())
    for half, rows in zip(halves, split_examples(ours, seed=0), strict=True):
        same = [
            row for row in theirs if row["row"] in {r["row"] for r in rows if r["set"] == "forget"}
        ]
        assert half == aggregate(rows, same)
        assert half["forget_quality"] < 1
