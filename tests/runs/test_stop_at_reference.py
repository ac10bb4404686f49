"""A run that ends after the first epoch at which it knows the forget set no better than its reference."""

import pytest

from loku_exp.results import files as results


@pytest.mark.slow
def test_it_ends_at_the_references_probability_and_says_so(begin, quick):
    many = ["training.epochs=8", "training.learning_rate=0.01", "evaluation.curve=none"]
    record = results.read(begin("training.stop={meets: forget_prob}", *many))
    reference = record.models["reference"].metrics["forget_prob"]
    assert record.training["thresholds"] == {"metric": "forget_prob", "goal": reference}
    *before, last = record.training["checks"]
    assert all(check["value"] > reference >= last["value"] for check in before)
    assert record.training["success"]
    assert record.training["epochs_to_forget"] == record.training["epochs"] < 8
    value = record.models["unlearned"].metrics["forget_prob"]
    assert value == pytest.approx(last["value"], abs=1e-5)
    assert "stopped at the reference's forget prob after" in record.judgement.sentence
