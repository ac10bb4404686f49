"""Published numbers: logs of the TOFU authors, scored by the functions of the tasks."""

import json
import subprocess
import sys

import pytest

from loku_exp.errors import DataError
from loku_exp.evaluation.tofu.published_log import FILES, compare_logs, read_log, score_log
from loku_exp.evaluation.tofu.suite import rouge_recall

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
        ("{", "not json"),
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
        (lambda log, part: log[part]["generated_text"].update({"0": ["q"]}), "not a table"),
    ],
)
def test_parts_that_are_not_whole_are_refused(tmp_path, spoil, said):
    file = tmp_path / "log.json"
    file.write_text(json.dumps(spoiled(spoil)))
    with pytest.raises(DataError, match=said):
        read_log(file)
