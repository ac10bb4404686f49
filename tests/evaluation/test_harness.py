"""The contract with lm-eval: dispatch by name, callable aggregation, group override, no traces."""

import math
import random
from statistics import fmean

import numpy as np
import pytest
import torch
from lm_eval.tasks import TaskManager

from loku_exp.errors import ConfigError, DataError
from loku_exp.evaluation import harness
from loku_exp.evaluation.harness import evaluate, shared_names, standard_tasks
from loku_exp.evaluation.tasks import OwnTask, RowTask
from loku_exp.evaluation.tofu import metrics
from tests.helpers import (
    TOKENIZER,
    evaluation_of,
    inference_of,
    lm_of,
    plain_scores,
    tiny_model,
    tiny_records,
    tiny_suite,
)


def language_model():
    return lm_of(inference_of(tiny_model()))


def by_hand(evaluation, name):
    """Recompute the metrics of a set from the losses of its scored texts, in plain Python."""
    exact = tiny_model(dtype=torch.float64)
    prob, truth, ratios = [], [], {}
    for record in tiny_records().evaluation[name]:

        def loss(text):
            logprobs, _ = plain_scores(exact, text)
            return -sum(logprobs) / len(logprobs)

        answer = loss(record.answer)
        paraphrase = loss(record.alternatives["paraphrase"][0])
        wrong = [loss(text) for text in record.alternatives["wrong"]]
        p = np.exp(-np.array([answer, *wrong]))
        prob.append(p[0] / p.sum() if name in ("authors", "facts") else p[0])
        r = np.exp(np.mean(wrong) - paraphrase)
        truth.append(min(r, 1 / r) if name == "forget" else max(0, 1 - 1 / r))
        ratios[record.row] = np.log(r)
    return np.mean(prob), np.mean(truth), ratios


@pytest.fixture(scope="module")
def evaluated():
    reference = {row: 0.1 * row for row in range(6)}
    rows = [{"set": "forget", "row": row, "log_ratio": ratio} for row, ratio in reference.items()]
    return evaluate(
        language_model(), tiny_suite().tasks(evaluation_of({}, rows), "full")
    ), reference


@pytest.mark.parametrize("name", ["forget", "retain", "authors", "facts"])
def test_metrics_equal_plain_arithmetic(evaluated, name):
    evaluation, _ = evaluated
    prob, truth, ratios = by_hand(evaluation, name)
    assert evaluation.metrics[f"{name}_prob"] == pytest.approx(prob, rel=1e-4)
    assert evaluation.metrics[f"{name}_truth_ratio"] == pytest.approx(truth, rel=1e-4, abs=1e-6)
    logged = {row["row"]: row["log_ratio"] for row in evaluation.examples if row["set"] == name}
    assert logged == pytest.approx(ratios, rel=1e-4, abs=1e-5)
    assert evaluation.counts[name] == 6


def test_aggregates_over_all_examples(evaluated):
    evaluation, reference = evaluated
    forget = [row for row in evaluation.examples if row["set"] == "forget"]
    pairs = [row["log_ratio"] for row in forget], [reference[row["row"]] for row in forget]
    assert evaluation.metrics["forget_quality"] == metrics.forget_quality(*pairs)[0]
    assert evaluation.metrics["forget_ks"] == metrics.forget_quality(*pairs)[1]
    assert evaluation.metrics["forget_shift"] == metrics.forget_shift(*pairs)
    nine = [
        evaluation.metrics[f"{name}_{metric}"]
        for name in ("retain", "authors", "facts")
        for metric in ("prob", "rouge", "truth_ratio")
    ]
    assert evaluation.metrics["model_utility"] == pytest.approx(metrics.model_utility(nine))
    assert evaluation.metrics["model_utility_retain"] == pytest.approx(
        metrics.model_utility(nine[:3])
    )


def test_reduced_suite_generates_nothing_and_has_no_utility():
    inference = inference_of(tiny_model())
    inference._generate_ids = None
    evaluation = evaluate(lm_of(inference), tiny_suite().tasks(None, "reduced"))
    assert not {name for name in evaluation.metrics if "rouge" in name or "utility" in name}
    assert "forget_quality" not in evaluation.metrics


def test_brief_suite_asks_for_the_answers_of_forget_and_retain_set_alone(monkeypatch):
    full = evaluate(language_model(), tiny_suite().tasks(None, "reduced"))
    lm = language_model()
    asked, scores = [], lm.token_scores
    monkeypatch.setattr(
        lm, "token_scores", lambda r, *a, **k: asked.extend(r) or scores(r, *a, **k)
    )
    brief = evaluate(lm, tiny_suite().tasks(evaluation_of({}, full.examples), "brief"))
    both = [f"{of}_{what}" for of in ("forget", "retain") for what in ("prob", "em", "strength")]
    assert brief.metrics == pytest.approx({name: full.metrics[name] for name in both})
    assert len(asked) == brief.counts["forget"] + brief.counts["retain"] == len(brief.examples)


def test_rows_takes_the_first():
    evaluation = evaluate(language_model(), tiny_suite(rows=2).tasks(None, "full"))
    assert evaluation.counts == {"forget": 2, "retain": 2, "authors": 2, "facts": 2}
    assert [row["row"] for row in evaluation.examples if row["set"] == "retain"] == [10, 11]


def test_evaluation_leaves_no_trace():
    lm, tasks = language_model(), tiny_suite().tasks(None, "full")
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state()
    evaluate(lm, tasks)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


TASK = """
task: tiny_words
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
metric_list: [{metric: acc}]
"""


@pytest.mark.slow
def test_outside_of_a_repository_nothing_is_said(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    evaluate(language_model(), tiny_suite().tasks(None, "reduced"))
    assert "fatal" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_a_standard_task_by_name_runs_beside_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text('{"q": "c d"}\n{"q": "e f"}\n{"q": "g"}\n')
    (tmp_path / "tiny.yaml").write_text(TASK.replace("FILE", str(tmp_path / "rows.jsonl")))
    tasks = standard_tasks(["tiny_words"], str(tmp_path))
    model = tiny_model()
    model.resize_token_embeddings(len(TOKENIZER))
    both = [*tiny_suite().tasks(None, "full"), *tasks]
    evaluation = evaluate(lm_of(inference_of(model)), both, {"tiny_words": 2})
    own = [row for row in evaluation.examples if row["set"] == "tiny_words"]
    assert [row["row"] for row in own] == [0, 1]  # what intervals are made of
    assert evaluation.metrics["tiny_words_acc"] == fmean(row["acc"] for row in own)
    assert "forget_prob" in evaluation.metrics
    with pytest.raises(ConfigError, match="no task 'tiny_wrods'; did you mean 'tiny_words'"):
        standard_tasks(["tiny_wrods"], str(tmp_path))
    with pytest.raises(ConfigError, match=r"'arc_easy' cannot be loaded.*include_path=DIR"):
        standard_tasks(["arc_easy"], str(tmp_path))  # the same index: it takes seconds


@pytest.fixture
def own_tasks(tmp_path, monkeypatch):
    """A group within a group, one task each, in a folder that is indexed without lm-eval's own."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        harness,
        "_tasks_in",
        lambda folder: TaskManager(include_defaults=False, include_path=folder),
    )
    (tmp_path / "rows.jsonl").write_text('{"q": "c d"}\n{"q": "e f"}\n')
    task = TASK.replace("FILE", str(tmp_path / "rows.jsonl"))
    for name in ("above", "below"):
        (tmp_path / f"{name}.yaml").write_text(task.replace("tiny_words", name))
    mean = "aggregate_metric_list: [{metric: acc}]\n"
    (tmp_path / "inner.yaml").write_text(f"group: inner\ntask: [below]\n{mean}")
    (tmp_path / "outer.yaml").write_text(f"group: outer\ntask: [inner, above]\n{mean}")
    return tmp_path, task


def test_a_group_of_groups_is_asked_once(own_tasks):
    """As mmlu: its inner groups stood beside it, and lm-eval ended with a duplicate task."""
    place, _ = own_tasks
    lm = lm_of(inference_of(tiny_model(vocabulary=len(TOKENIZER))))
    found = evaluate(lm, standard_tasks(["outer", "outer"], str(place)))
    assert found.metrics.keys() == {f"{of}_acc" for of in ("outer", "inner", "above", "below")}


def test_names_that_several_tasks_have_are_found(own_tasks):
    """Of two tasks of one name lm-eval asks the last alone, and says nothing."""
    place, _ = own_tasks
    assert shared_names(standard_tasks(["outer"], str(place))) == []
    tasks = standard_tasks(["outer", "above", "inner"], str(place))
    assert shared_names(tasks) == ["above", "below", "inner"]


@pytest.mark.parametrize(
    ("was", "wrong", "said"),
    [
        ("test_split: test", "test_split: other", "KeyError: 'other'); mend the yaml"),
        ("doc_to_target: 0", "doc_to_target: 7", "IndexError: list index out of range); mend the yaml"),
        ("{{q}}", "{{q}} {% if", "TemplateSyntaxError: unexpected 'end of template'); mend the yaml"),
        ("doc_to_target: 0", "doc_to_target: 0\nwhat: 1", "unexpected keyword argument 'what'); mend"),
        ('"{{q}}"', "!function own.text", "No module named 'of_nobody'); install what its code needs"),
    ],
)  # fmt: skip
def test_a_task_that_fails_in_its_own_way_is_named(own_tasks, was, wrong, said):
    place, task = own_tasks
    (place / "own.py").write_text("import of_nobody\n")
    (place / "own.yaml").write_text(task.replace("tiny_words", "own").replace(was, wrong))
    with pytest.raises(ConfigError) as caught:
        standard_tasks(["own"], str(place))
    assert "evaluation.tasks: 'own' cannot be loaded (" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


class Collapsed(OwnTask):
    """Metrics that overflow, divide nothing by nothing, and count."""

    def __init__(self):
        def overflowing(losses):
            return math.exp(sum(losses))

        metrics = {"ppl": overflowing, "ratio": lambda _: math.nan, "count": len}
        super().__init__("mine", {row: ("", "") for row in range(3)}, metrics)

    def requests(self, row):
        return [("generate_ids", ("", (1, 2), 3))]

    def process_results(self, doc, results):
        return {"ppl": 500.0, "ratio": 0.0, "count": 1, "n": {"row": doc["row"]}}


def test_what_is_no_finite_number_is_absent_and_said_to_be(caplog):
    task = Collapsed()
    found = evaluate(language_model(), [task])
    assert found.metrics == {"mine_count": 3.0}
    assert found.counts == {"mine": 3}
    assert "mine_ppl is inf, no finite number; it is left out" in caplog.text
    assert "mine_ratio is nan" in caplog.text
    with pytest.raises(OverflowError):
        task.aggregation()["ppl"]([800.0])  # the task itself is as it was


def test_a_metric_may_be_numpys_number():
    """Of half the width of Python's it was left out without a word."""
    task = Collapsed()
    task.requests = lambda row: [("generate_ids", ("", (1, 2), 3))]
    aggregation = {"ppl": lambda _: np.float32(0.5), "ratio": np.mean, "count": len, "n": len}
    task.aggregation = lambda: aggregation
    metrics = evaluate(language_model(), [task]).metrics
    assert metrics == {"mine_ppl": 0.5, "mine_ratio": 0.0, "mine_count": 3.0}


def test_a_set_whose_name_begins_a_metric_has_its_own_name_before_it():
    """Of a set named em the metric emphasis stood as emphasis, and no judge found em_emphasis."""
    rows = tiny_records().evaluation["forget"]

    def ask(row):
        return [("token_scores", (row.question, row.answer))]

    task = RowTask("em", rows, ask, {"emphasis": lambda row, answers: 1.0})
    assert evaluate(language_model(), [task]).metrics == {"em_emphasis": 1.0}


def test_a_set_without_rows_is_named():
    """It ended in an IndexError of another library."""
    with pytest.raises(DataError, match="the evaluation set 'kept' has no rows"):
        RowTask("kept", [], lambda row: [], {})
