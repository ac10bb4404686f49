"""The tidy frame: what its rows are, and what is derived from a record's metrics."""

import subprocess
import sys

import pytest

import loku_exp
from loku_exp.errors import UserError
from loku_exp.results import files as results
from tests.report.factory import edit, own_suite, tdec, tofu
from tests.report.test_groups import attacked


def value(frame, metric, subject="unlearned"):
    (found,) = frame[(frame.metric == metric) & (frame.subject == subject)]["value"]
    return found


def test_every_metric_of_every_model_is_a_row(tmp_path):
    record = results.read(edit(tofu(tmp_path), attacked))
    frame = loku_exp.load_runs(tmp_path)
    for name, model in record.models.items():
        for metric, number in model.metrics.items():
            assert value(frame, metric, name) == number
    assert not frame["value"].isna().any()
    attack = frame[frame.attack == "relearn"]
    assert set(attack.subject) == {"target+relearn", "unlearned+relearn", "reference+relearn"}
    assert set(attack.role) == {"attacked"}


def test_an_absent_metric_is_an_absent_row(tmp_path):
    folder = tofu(tmp_path)
    edit(folder, lambda r: r["models"]["unlearned"]["metrics"].pop("forget_rouge"))
    frame = loku_exp.load_runs(tmp_path)
    assert set(frame[frame.metric == "forget_rouge"].subject) == {"target", "reference"}


def test_what_is_derived_by_hand(tmp_path):
    tofu(tmp_path, metrics={"model_utility": 0.39, "forget_prob": 0.05})
    frame = loku_exp.load_runs(tmp_path)
    assert value(frame, "utility_kept") == pytest.approx(0.39 / 0.52)
    assert value(frame, "distance") == pytest.approx(0.15 - 0.05)
    assert not (frame.metric == "above_goals").any()


def test_a_perplexity_is_kept_when_it_stays_low(tmp_path):
    def by_perplexity(record):
        record["models"]["unlearned"]["metrics"]["pile_ppl"] = 34.0
        record["models"]["unlearned"]["judgement"]["utility"] = "pile_ppl"

    edit(tdec(tmp_path), by_perplexity)
    assert value(loku_exp.load_runs(tmp_path), "utility_kept") == pytest.approx(17.0 / 34.0)


@pytest.mark.parametrize(
    ("ma", "el", "above"), [(0.2, 0.01, 0.0), (0.4, 0.01, 0.1), (0.31, 0.2, 0.15)]
)
def test_the_farthest_goal_counts(tmp_path, ma, el, above):
    edit(tdec(tmp_path), lambda r: r["models"]["unlearned"]["metrics"].update(
        forget_ma=ma, forget_el10=el))  # fmt: skip
    assert value(loku_exp.load_runs(tmp_path), "above_goals") == pytest.approx(above)


def test_words_are_the_catalogues(tmp_path):
    own_suite(tmp_path, hush=1.0)
    frame = loku_exp.load_runs(tmp_path)
    assert set(frame.metric) == {"spells"}
    assert set(frame.metric_label) == {"spells known"}
    assert set(frame.part) == {"knowledge"}


def test_filters_are_those_of_the_command(tmp_path):
    for loss in ("gd", "ihl"):
        tofu(tmp_path, loss=loss)
    assert set(loku_exp.load_runs(tmp_path, "loss=gd").loss) == {"gd"}
    with pytest.raises(UserError, match="did you mean 'ihl'"):
        loku_exp.load_runs(str(tmp_path), "loss=ilh")


def test_the_package_alone_imports_no_pandas():
    code = "import sys, loku_exp; loku_exp.load_runs; print('pandas' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
