"""OpenUnlearning's logs as reference and scored; no real one is at hand, so a small one of its layout."""

import json
import sys
from math import exp
from statistics import fmean, harmonic_mean

import pytest
from scipy.stats import ks_2samp

from loku_exp import score_log as program
from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError, DataError
from loku_exp.evaluation.tofu.published_log import compare_logs, read_log, score_log
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.results import files as results
from loku_exp.results.table import header_and_rows, notes
from loku_exp.run import run
from tests.data.tofu_folder import tofu_folder
from tests.evaluation.tofu.openunlearning import PREFIXES, log_of
from tests.evaluation.tofu.test_published_log import tiny_log
from tests.helpers import tiny_model

ANSWERS = {name: [f"{name} answer {row}" for row in range(8)] for name in PREFIXES}
OF_FOLDER = {
    "forget": [f"a{row}" for row in range(40, 60)], "retain": [f"a{row}" for row in range(8)],
    "authors": ["x"], "facts": ["x"],
}  # fmt: skip


def written(place, content, name="TOFU_EVAL.json"):
    (place / name).write_text(json.dumps(content))
    return place / name


def by_hand(content):
    """Aggregate as OpenUnlearning's code does: truth ratios are wrong / (correct + 1e-10)."""
    found = {}
    for name, (prefix, _) in PREFIXES.items():
        answer, wrong, rouge, para = (
            [row for row in content[f"{prefix}_{metric}"]["value_by_index"].values()]
            for metric in (
                "Q_A_Prob", "Q_A_PERT_Prob", "Q_A_ROUGE",
                "Q_A_PARA_Prob" if name in ("forget", "retain") else "Q_A_Prob",
            )
        )  # fmt: skip
        ratios = [
            exp(-fmean(w["avg_loss"])) / (exp(-p["avg_loss"]) + 1e-10)
            for w, p in zip(wrong, para, strict=True)
        ]
        probs = [exp(-row["avg_loss"]) for row in answer]
        if name in ("authors", "facts"):
            sums = [sum(exp(-loss) for loss in row["avg_loss"]) for row in wrong]
            probs = [p / (p + s) for p, s in zip(probs, sums, strict=True)]
        near = [min(r, 1 / r) if name == "forget" else max(0, 1 - r) for r in ratios]
        found |= {f"{name}_prob": fmean(probs), f"{name}_truth_ratio": fmean(near)}
        found[f"{name}_rouge"] = fmean(row["rougeL_recall"] for row in rouge)
    nine = [value for name, value in found.items() if not name.startswith("forget")]
    return found | {"model_utility": harmonic_mean(nine)}


def test_scores_are_those_of_its_own_formulas(tmp_path):
    content = log_of(ANSWERS)
    scores = score_log(read_log(written(tmp_path, content)))
    expected = by_hand(content)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-7)


def test_forget_quality_whatever_day_the_prompts_name(tmp_path):
    other = log_of(ANSWERS, day="11 Apr 2025")
    for row, values in other["forget_Q_A_PARA_Prob"]["value_by_index"].items():
        values["avg_loss"] += 0.1 * int(row)
    log, reference = (
        read_log(written(tmp_path, content, name))
        for name, content in (("a.json", log_of(ANSWERS)), ("b.json", other))
    )
    ratios = [
        [fmean(row.wrong_losses) - row.paraphrase_loss for row in of["forget"]]
        for of in (log, reference)
    ]
    assert compare_logs(log, reference)["forget_quality"] == ks_2samp(*ratios).pvalue
    apart = ANSWERS | {"forget": ANSWERS["forget"][::-1]}
    with pytest.raises(DataError, match="the forget sets differ: 8 and 8 rows, 8 questions"):
        compare_logs(log, read_log(written(tmp_path, log_of(apart))))
    with pytest.raises(
        DataError, match="one log is of OpenUnlearning, the other of TOFU's authors"
    ):
        compare_logs(log, read_log(written(tmp_path, tiny_log(as_list=True))))


def test_the_program_scores_it(tmp_path, monkeypatch, capsys):
    file = str(written(tmp_path, log_of(ANSWERS)))
    monkeypatch.setattr(sys, "argv", ["score_log", file, "--reference", file])
    program.main()
    printed = json.loads(capsys.readouterr().out)
    assert printed["forget_quality"] == 1
    assert printed["forget_n"] == 8


def drop(metric, *path):
    def spoil(content):
        node = content
        for key in (metric, *path)[:-1]:
            node = node[key]
        del node[(metric, *path)[-1]]

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop("ra_Q_A_PERT_Prob"), "has no rows of 'ra_Q_A_PERT_Prob' (value_by_index); give the"),
        (drop("forget_Q_A_Prob", "value_by_index"), "has no rows of 'forget_Q_A_Prob'"),
        (drop("wf_Q_A_Prob", "value_by_index", "3", "avg_loss"), "'wf_Q_A_Prob': row 3 has no 'avg_loss'"),
        (drop("retain_Q_A_Prob", "value_by_index", "2"), "set 'retain' has no avg_gt_loss for row 2"),
        (
            lambda log: log["forget_Q_A_Prob"]["value_by_index"]["0"].update(avg_loss=float("nan")),
            "set 'forget', 'avg_gt_loss', row 0: nan",
        ),
        (
            lambda log: log["forget_Q_A_Prob"]["value_by_index"].update({"x": {"avg_loss": 1.0}}),
            "rows must be different numbers from 0",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(tmp_path, spoil, said):
    content = log_of(ANSWERS)
    spoil(content)
    with pytest.raises(DataError) as caught:
        read_log(written(tmp_path, content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model and a folder in TOFU's layout."""
    model, data = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("tofu")
    made = tiny_model(vocabulary=300)
    made.config.max_position_embeddings = 256
    type(made)(made.config).save_pretrained(model)
    train_tokenizer(["who q1? a2 p3 w4 567890"] * 3, 300).save_pretrained(model)
    return model, tofu_folder(data)


def config_with(log, folders, tmp_path, shared_cache, *more):
    model, data = folders
    return compose_config([
        "model=hf", f"model.path={model}", "model.dtype=float32", "model.attention=eager", "dataset=tofu",
        f"dataset.path={data}", "evaluation.rows=all", "unlearn=false", "reference.source=log",
        f"reference.path={log}", f"output_dir={tmp_path / 'out'}", f"cache_dir={shared_cache}", *more,
    ])  # fmt: skip


def test_as_reference_it_is_foreign_in_record_and_table(folders, tmp_path, shared_cache):
    content = log_of(OF_FOLDER)
    log = written(tmp_path, content)
    record = results.read(run(config_with(log, folders, tmp_path, shared_cache)))
    expected = by_hand(content)
    found = record.models["reference"].metrics
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-7)
    assert record.models["target"].metrics["forget_ks"] > 0
    header, _ = header_and_rows(record)
    assert header == ["", "target", "reference (foreign)"]
    assert f"reference (foreign): not evaluated here, its rows are those of the log {log}" in notes(
        record
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"forget": OF_FOLDER["forget"][:-1]}, "has 19 rows of 'forget', this run evaluates 20"),
        ({"retain": ["a0", "b1", *OF_FOLDER["retain"][2:]]}, "row 1 of 'retain' answers 'b1', ours 'a1'"),
    ],
)  # fmt: skip
def test_other_rows_are_refused(folders, tmp_path, shared_cache, change, said):
    log = written(tmp_path, log_of(OF_FOLDER | change))
    with pytest.raises((ConfigError, DataError), match=said):
        run(config_with(log, folders, tmp_path, shared_cache))
