"""Whole TDEC runs on toy texts: thresholds, the stop rule, what is shown, and resuming."""

import shutil
from statistics import fmean, stdev

import pytest

from loku_exp.results import files as results
from tests.helpers import TINY_TDEC, killed_at_its_first_snapshot
from tests.runs.running import examples, forget_end, numbers, same_numbers

SETS = ("forget", "sibling", "retain", "unseen")
FORGOTTEN_AT_ONCE = ["training.stop.el=0.99", "training.stop.ma=0.99"]
NEVER_FORGOTTEN = ["training.stop.el=1e-9", "training.stop.ma=1e-9"]


def test_thresholds_are_those_of_the_targets_unseen_texts(toy):
    rows = examples(toy, "target", "unseen")
    expected = {"n": 2, "texts": 8}
    for name, column in (("el", "el2"), ("ma", "ma")):
        values = [row[column] for row in rows]
        expected |= {name: fmean(values), f"{name}_error": stdev(values) / 8**0.5}
    assert results.read(toy).training["thresholds"] == pytest.approx(expected)


def test_what_a_record_says_about_the_stop(toy):
    record = results.read(toy)
    training, curve, limits = record.training, record.curve, record.training["thresholds"]
    updates = record.protocol["updates"]
    assert [check["step"] for check in training["checks"]] == list(range(1, updates + 1))
    assert [check["forgotten"] for check in training["checks"][:-1]] == [False] * (updates - 1)
    assert training["check_seconds"] == pytest.approx(
        sum(check["seconds"] for check in training["checks"])
    )
    assert (training["epochs"], training["max_epochs"]) == (updates, 3)
    # The checks along the way and the final evaluation are two computations of the same thing.
    below = [
        point.metrics["forget_el2"] < limits["el"] and point.metrics["forget_ma"] < limits["ma"]
        for point in curve[1:]
    ]
    assert below == [check["forgotten"] for check in training["checks"]]
    assert training["success"] is below[-1]
    assert training["epochs_to_forget"] == (updates if training["success"] else None)
    before = curve[-2].metrics
    told = f"one epoch before: EL_2 {before['forget_el2']:.4f}, MA {before['forget_ma']:.4f}"
    assert any(told in note for note in record.notes)
    assert [(point.step, point.epoch) for point in curve] == [(i, i) for i in range(updates + 1)]
    assert curve[0].metrics == record.models["target"].metrics
    assert curve[-1].metrics == record.models["unlearned"].metrics
    assert record.protocol["examples_per_update"] == [4, 4]
    assert "forgotten" in record.judgement.sentence.lower()
    assert "siblings keep" in record.judgement.sentence


def test_every_model_has_every_metric_of_every_set(toy):
    record = results.read(toy)
    assert record.models.keys() == {"target", "reference", "unlearned"}
    metrics = ("ma", "loss", "el2", "el10", "exact8", "exact24")
    expected = {f"{name}_{metric}" for name in SETS for metric in metrics}
    for model in record.models.values():
        assert model.metrics.keys() == expected
    assert record.protocol["rows"] == {"forget": 4, "sibling": 4, "retain": 4, "unseen": 8}
    assert {"target", "reference"} == {
        role for role, model in record.models.items() if model.derived_from is None
    }


def test_flops_add_up(toy):
    flops = results.read(toy).cost["flops"]
    parts = [flops[name] for name in ("training", "fisher", "low_rank")]
    assert min(parts) > 0
    assert flops["total"] == sum(parts)
    assert flops["total_with_shared_fisher"] == flops["training"] + flops["low_rank"]


def test_the_table_shows_three_continuations_and_the_stop_rule(toy):
    text = (toy / "results.md").read_text()
    for label in ("forget text ", "  true:   ", "  before: ", "  after:  "):
        assert text.count(f"\n{label}") == 3
    row = examples(toy, "unlearned", "forget")[0]
    assert f"\n  after:  {row['generation']!r}"[:200] in text
    assert "stop rule: EL_2 < " in text
    assert "measured on 8 unseen texts; the reference has EL_2 " in text
    assert "one epoch before: EL_2 " in text
    assert "TOY data" in text


def test_a_finished_run_is_shown_without_work(toy, begin, asked, capsys):
    stamp = (toy / "metrics.json").stat().st_mtime_ns
    assert begin(output=toy.parent, base=TINY_TDEC) == toy
    assert (toy / "metrics.json").stat().st_mtime_ns == stamp
    assert asked.requests == {}
    shown = capsys.readouterr().out
    assert "stop rule:" in shown
    assert shown.count("forget text ") == 3


def test_a_run_killed_before_its_end_gives_the_same_numbers(toy, begin, tmp_path):
    folder = shutil.copytree(toy, tmp_path / toy.name, ignore=shutil.ignore_patterns(".lock"))
    forget_end(folder)
    assert begin(base=TINY_TDEC) == folder
    same_numbers(folder, toy)


@pytest.mark.slow
def test_a_run_killed_after_an_epoch_gives_the_same_numbers(begin, tmp_path):
    overrides = [*TINY_TDEC, *NEVER_FORGOTTEN]
    whole = begin(output=tmp_path / "whole", base=overrides)
    record = results.read(whole)
    assert (record.training["success"], record.training["epochs_to_forget"]) == (False, None)
    assert "NOT forgotten within 3 epochs" in record.judgement.sentence
    with killed_at_its_first_snapshot():
        begin(output=tmp_path / "killed", base=overrides)
    (folder,) = (tmp_path / "killed").iterdir()
    assert [path.name for path in folder.glob("snapshots/*")] == ["step-00001"]
    assert begin(output=tmp_path / "killed", base=overrides) == folder
    assert numbers(folder) == numbers(whole)


def test_training_ends_exactly_after_the_epoch_that_has_forgotten(begin):
    overrides = [*TINY_TDEC, *FORGOTTEN_AT_ONCE]
    folder = begin(base=overrides)

    def check(record):
        assert record.protocol["updates"] == 1
        assert record.training["success"] is True
        assert record.training["epochs_to_forget"] == record.training["epochs"] == 1
        assert [(c["step"], c["forgotten"]) for c in record.training["checks"]] == [(1, True)]
        assert len(record.training["forget_loss"]) == 1
        assert [point.step for point in record.curve] == [0, 1]
        assert "forgotten after 1 of at most 3 epochs" in record.judgement.sentence
        limits = record.training["thresholds"]
        assert limits == {
            "n": 2, "el": 0.99, "ma": 0.99, "el_error": 0.0, "ma_error": 0.0, "texts": 0
        }  # fmt: skip
        assert "(± 0.0000), given" in (folder / "results.md").read_text()

    check(results.read(folder))
    assert [path.name for path in folder.glob("snapshots/*")] == ["step-00001"]
    before = numbers(folder)
    forget_end(folder)  # and what was stopped is not trained on when it is taken up again
    assert begin(base=overrides) == folder
    check(results.read(folder))
    assert numbers(folder) == before


def test_without_a_stop_rule_training_goes_to_its_end(begin):
    record = results.read(begin("training.stop=null", "evaluation.curve=none", base=TINY_TDEC))
    assert record.protocol["updates"] == 3
    assert not {"thresholds", "success", "checks", "epochs_to_forget"} & record.training.keys()
    assert "trained to the end without a stop rule" in record.judgement.sentence
