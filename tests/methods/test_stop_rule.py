"""Thresholds by hand, checks against exact values, and a training that ends when it should."""

import json
from dataclasses import asdict
from functools import partial
from statistics import fmean, stdev

import pytest
import torch
from loku_exp.methods.unlearning import plan_of, unlearn

from loku_exp.config.compose import compose_config
from loku_exp.data.records import Example, Records, Sequence
from loku_exp.errors import ConfigError, TrainingError
from loku_exp.evaluation.harness import Evaluation
from loku_exp.evaluation.lm.wavefront import greedy_continuations
from loku_exp.evaluation.tdec.metrics import (
    continuations,
    extraction_likelihood,
    memorisation_accuracy,
    wanted,
)
from loku_exp.evaluation.tdec.stop_check import Check, Thresholds, check, would_flip
from loku_exp.inits.vanilla import vanilla
from loku_exp.losses.builtin import ihl
from loku_exp.methods.adapter import Adapter
from loku_exp.methods.stop_rule import UntilForgotten, around_the_stop, thresholds_of
from loku_exp.runtime.settings import StopRule
from tests.helpers import random_sequence, tiny_model


def unseen(*pairs: tuple[float, float]) -> Evaluation:
    rows = [{"set": "unseen", "el10": el, "ma": ma} for el, ma in pairs]
    return Evaluation({}, {}, [*rows, {"set": "forget", "el10": 1.0, "ma": 1.0}])


def test_thresholds_are_means_of_unseen_text_with_their_standard_error():
    found = thresholds_of(StopRule(n=10, el=None, ma=None), unseen((0.1, 0.2), (0.3, 0.6)))
    assert (found.el, found.ma, found.texts) == (pytest.approx(0.2), pytest.approx(0.4), 2)
    # standard deviation of two values is their distance / sqrt(2); the error divides by sqrt(2) again
    assert (found.el_error, found.ma_error) == (pytest.approx(0.1), pytest.approx(0.2))


def test_given_thresholds_are_taken_as_they_are():
    stop = compose_config(["dataset=toy_tdec", "training=tdec_published"]).training.stop
    assert thresholds_of(stop, unseen()) == Thresholds(10, 0.0499, 0.2994)
    assert thresholds_of(None, unseen()) is None


@pytest.mark.parametrize("n", [10, 3])
def test_thresholds_without_unseen_text_or_without_this_n_say_what_to_set(n):
    evaluation = unseen() if n == 10 else unseen((0.1, 0.2), (0.3, 0.6))
    with pytest.raises(ConfigError, match=r"training\.stop\.el is to be measured on unseen text"):
        thresholds_of(StopRule(n=n, el=None, ma=None), evaluation)


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"nothing can be below 0; lower training\.stop\.n"):
        thresholds_of(StopRule(n=10, el=None, ma=None), unseen((0, 0.2), (0, 0.6)))


@pytest.fixture(scope="module")
def memorising():
    """Texts, and models that know them not at all, by half, and by heart."""
    texts = [random_sequence(24, 0, 61, i).ids for i in range(11)]
    batch = torch.tensor(texts)
    model = tiny_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    states = {}
    for step in range(161):
        if step in (0, 80, 160):
            states[step] = {k: v.clone() for k, v in model.state_dict().items()}
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    return texts, states


@pytest.mark.parametrize("step", [0, 80, 160])
@pytest.mark.parametrize("end_of_text", [None, 7])
def test_checks_agree_with_exact_values_at_every_threshold(memorising, step, end_of_text):
    texts, states = memorising
    model = tiny_model()
    model.load_state_dict(states[step])
    n = 3
    answers = greedy_continuations(
        model, texts, lambda ids, guess: wanted(ids, guess, n), 1_000_000
    )
    pairs = list(zip(texts, answers, strict=True))
    ma = fmean(memorisation_accuracy(ids, a.argmax) for ids, a in pairs)
    el = fmean(
        extraction_likelihood(ids, continuations(ids, a, end_of_text), n) for ids, a in pairs
    )
    reasons = set()
    for ma_limit in (0.0, ma - 1e-6, ma + 1e-6, 0.5, 1.1):
        for el_limit in (0.0, el / 2, el - 1e-6, el + 1e-6, 1.1):
            found = check(model, texts, Thresholds(n, el_limit, ma_limit), end_of_text)
            assert found.forgotten == (ma < ma_limit and el < el_limit)
            assert found.ma <= ma + 1e-9
            assert found.el is None or found.el <= el + 1e-9
            if found.decided_by == "both":
                assert (found.ma, found.el) == (pytest.approx(ma), pytest.approx(el))
            reasons.add(found.decided_by)
    assert {"ma", "both"} <= reasons


def test_a_check_reads_no_more_than_it_needs(memorising):
    texts, states = memorising
    model = tiny_model()
    model.load_state_dict(states[160])
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert check(model, texts, Thresholds(3, 0.5, 0.3)).decided_by == "ma"
    assert len(calls) == 1  # eight texts known by heart of eleven are more than .3
    calls.clear()
    assert check(model, texts, Thresholds(3, 0.5, 1.1)).decided_by == "el bound"
    assert len(calls) == 2  # two batches of texts, nothing decoded


@pytest.mark.parametrize(
    ("ma", "el", "answer"),
    [
        (0.25, 0.01, False),
        (0.295, 0.01, True),
        (0.31, 0.01, True),
        (0.4, 0.01, False),
        (0.2, None, None),
    ],
)
def test_would_flip(ma, el, answer):
    assert would_flip(ma, el, Thresholds(10, 0.05, 0.3, el_error=0.01, ma_error=0.02)) is answer


RECIPE = compose_config(
    ["dataset=toy_tdec", "training.epochs=6", "training.retain_batch_size=3"]
).training


def unlearned(folder, measure, monkeypatch=None):
    """Unlearn four random texts with a stop rule of our own making."""
    folder.mkdir(exist_ok=True)
    rows = [random_sequence(9, 0, 61, i) for i in range(10)]
    records = [
        Example(i, "", "", row.ids, Sequence(row.ids, row.ids)) for i, row in enumerate(rows)
    ]
    model = tiny_model()
    adapter = Adapter(2, 4, 0.0, ["q_proj", "c_fc"])
    layers = adapter.layers(model, 0)
    until = partial(UntilForgotten, measure, Thresholds(10, 0.1, 0.3), folder=folder)
    return unlearn(
        model,
        Records([], [], records[:4], records[4:], {}),
        ihl,
        ("forget", "retain"),
        RECIPE,
        adapter=adapter,
        initialise=lambda: ({f.name: f for f in vanilla(layers)}, {}),
        folder=folder,
        seed=0,
        until=until,
    )


def forgotten_at(epoch):
    asked = []

    def measure(model):
        assert not model.training
        asked.append(1)
        return Check(len(asked) == epoch, 0.5, None, "ma")

    return measure


def weights(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_training_ends_after_the_first_epoch_that_has_forgotten(tmp_path, epoch):
    result = unlearned(tmp_path, forgotten_at(epoch))
    assert len(result.history) == epoch
    assert [snapshot.step for snapshot in result.snapshots] == list(range(1, epoch + 1))
    assert result.stop["success"] is True
    assert result.stop["epochs_to_forget"] == epoch
    assert [c["forgotten"] for c in result.stop["checks"]] == [False] * (epoch - 1) + [True]


def test_training_without_success_goes_to_the_end(tmp_path):
    result = unlearned(tmp_path, forgotten_at(99))
    assert len(result.history) == 6
    assert (result.stop["success"], result.stop["epochs_to_forget"]) == (False, None)


def test_checks_do_not_disturb_the_training(tmp_path):
    """A model checked along the way is the model that is not."""
    checked = unlearned(tmp_path / "a", forgotten_at(99))

    def random_numbers(model):
        torch.manual_seed(5)
        return Check(False, 0.5, None, "ma")

    other = unlearned(tmp_path / "b", random_numbers)
    torch.testing.assert_close(weights(other.model), weights(checked.model), rtol=0, atol=0)


def test_a_training_killed_after_its_last_check_is_not_trained_further(tmp_path):
    first = unlearned(tmp_path, forgotten_at(3))

    def never(model):
        raise AssertionError("checked again")

    again = unlearned(tmp_path, never)
    torch.testing.assert_close(weights(again.model), weights(first.model), rtol=0, atol=0)
    assert again.history == first.history
    assert again.stop == first.stop


class Killed(Exception):
    pass


def test_a_training_killed_between_a_check_and_its_snapshot_checks_again(tmp_path):
    """The check of epoch 3 is on disk, the snapshot is not: that epoch is trained and checked anew."""
    undisturbed = unlearned(tmp_path / "whole", forgotten_at(4))
    folder = tmp_path / "killed"
    asked = []

    def killed_at_three(model):
        asked.append(1)
        if len(asked) == 3:
            raise Killed
        return Check(False, 0.5, None, "ma")

    with pytest.raises(Killed):
        unlearned(folder, killed_at_three)
    stale = [*json.loads((folder / "checks.json").read_text())]
    stale.append(
        {**stale[-1], "step": 3, "forgotten": True}
    )  # as if killed just before the snapshot
    (folder / "checks.json").write_text(json.dumps(stale))
    result = unlearned(folder, forgotten_at(2))  # its second check is that of epoch 4
    assert [c["step"] for c in result.stop["checks"]] == [1, 2, 3, 4]
    torch.testing.assert_close(weights(result.model), weights(undisturbed.model), rtol=0, atol=0)


def test_a_micro_batch_without_a_retain_example_is_refused():
    recipe = RECIPE.model_copy(update={"retain_batch_size": 2, "micro_batch_size": 1})
    with pytest.raises(TrainingError, match=r"training\.retain_batch_size=2 leaves some of the 4"):
        plan_of(recipe, 4)


def test_standard_error_shrinks_with_the_number_of_texts():
    pairs = [(0.01 * i, 0.2 + 0.01 * i) for i in range(16)]
    found = thresholds_of(StopRule(n=10, el=None, ma=None), unseen(*pairs))
    assert found.el_error == pytest.approx(stdev(el for el, _ in pairs) / 4)


@pytest.mark.parametrize(
    ("ma", "el", "flips"),
    [(0.30, 0.03, False), (0.385, 0.03, True), (0.405, 0.03, True), (0.43, 0.03, False)],
)
def test_whether_the_outcome_hangs_on_the_error_of_the_thresholds(ma, el, flips):
    limits = asdict(Thresholds(n=10, el=0.05, ma=0.40, el_error=0.01, ma_error=0.02))
    end, before = {"forget_ma": ma, "forget_el10": el}, {"forget_ma": 0.5, "forget_el3": 0.1}
    found = around_the_stop(limits, end, before)
    assert found == {"flips_within_error": flips, "epoch_before": {"MA": 0.5}}


def test_without_el_nothing_is_said_of_flips():
    limits = asdict(Thresholds(n=10, el=0.05, ma=0.40))
    assert around_the_stop(limits, {"forget_ma": 0.5}, None) == {"flips_within_error": None}
