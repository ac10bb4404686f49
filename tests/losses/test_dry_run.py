"""A loss that is none is found on two rows, a line each; one that is has nothing said of it."""

import math
from functools import partial

import pytest
import torch

from loku_exp.losses.builtin import ga, gd, ihl, language_modelling
from loku_exp.losses.dry_run import problems
from loku_exp.losses.scores import LossTerms
from loku_exp.losses.terms import cross_entropy
from tests.helpers import random_sequence

ROWS = [random_sequence(7 + i, 3, 61, i) for i in range(4)]
LONG = [random_sequence(90, 80, 61, i) for i in range(2)]  # labels at the end alone


def found(loss, rows=ROWS, layers=2, **knobs):
    texts = {"forget": rows, "retain": rows}
    return problems("mine", partial(loss, **knobs), texts, 61, layers)


def preference(forget, retain):
    """As NPO compares: with the target model."""
    ratio = forget.sequence_sums(forget.logprobs() - forget.reference.logprobs())
    return LossTerms(-2 / 0.1 * torch.nn.functional.logsigmoid(-0.1 * ratio).mean())


def steering(forget, retain):
    """As RMU compares: hidden states of a deep layer."""
    hidden = forget.hidden(7)
    return LossTerms((hidden - torch.ones_like(hidden)).square().mean(), reaches_all=False)


def regularised(forget, retain):
    extra = {"norm": 0.1 * forget.hidden(1).square().mean()}
    return LossTerms(-forget.mean(cross_entropy), retain.mean(cross_entropy), 2.0, extra)


def retain_alone(forget, retain):
    return LossTerms(torch.zeros(()), retain.mean(cross_entropy))


@pytest.mark.parametrize("rows", [ROWS, LONG, ROWS[:1]], ids=["short", "long", "one row"])
@pytest.mark.parametrize("loss", [gd, ihl, preference, regularised, retain_alone])
def test_nothing_is_said_of_a_loss(loss, rows):
    assert found(loss, rows) == []


def test_a_loss_has_the_factors_of_the_adapter_that_is_trained():
    def on_factors(forget, retain):
        extra = sum(factors.b.norm() for factors in forget.factors.values())
        return LossTerms(-forget.mean(cross_entropy), others={"on_b": extra})

    texts = {"forget": ROWS, "retain": ROWS}
    assert problems("mine", on_factors, texts, 61, adapted=True) == []
    (said,) = problems("mine", on_factors, texts, 61)
    assert said.startswith("loss=mine: its term 'on_b' is int, each term is one number")


def test_losses_of_one_batch():
    assert problems("ga", ga, {"forget": ROWS}, 61) == []
    assert problems("lm", language_modelling, {"rows": ROWS}, 61) == []


def test_hidden_states_are_of_as_many_layers_as_the_model_has():
    assert found(steering, layers=8) == []
    (said,) = found(steering, layers=4)
    assert said.startswith("loss=mine: it fails on two rows (IndexError: ")
    assert "test_dry_run.py, line " in said


def tensor(forget, retain):
    return forget.logprobs().mean()


def vector(forget, retain):
    return LossTerms(forget.logprobs())


def number(forget, retain):
    return LossTerms(forget.logprobs().mean().item(), retain.mean(cross_entropy))


def detached(forget, retain):
    return LossTerms(-forget.mean(cross_entropy).detach(), retain.mean(cross_entropy))


def all_detached(forget, retain):
    with torch.no_grad():
        return LossTerms(0 * forget.mean(cross_entropy))


def embedding_alone(forget, retain):
    """An adapter is in the layers: what stands before them learns nothing."""
    return LossTerms(forget.hidden(0).square().mean(), retain.mean(cross_entropy))


def nan(forget, retain):
    return LossTerms(forget.mean(cross_entropy) * float("nan"))


def infinite(forget, retain):
    return LossTerms(forget.mean(cross_entropy), (0 * retain.mean(cross_entropy)).log())


def vector_beside(forget, retain):
    return LossTerms(forget.mean(cross_entropy), others={"drift": retain.logprobs()})


def named_twice(forget, retain):
    value = forget.mean(cross_entropy)
    return LossTerms(value, retain.mean(cross_entropy), others={"retain": value})


def root_of_zero(forget, retain):
    zero = 0 * forget.logprobs().sum()
    return LossTerms(forget.mean(cross_entropy) + zero.abs().sqrt())


def raising(forget, retain):
    return LossTerms(forget.lobprobs().mean())


def in_place(forget, retain):
    values = forget.logprobs().exp()
    loss = values.square().sum()
    values += 1
    return LossTerms(loss)


MISTAKES = {
    tensor: "it returns Tensor, a loss returns LossTerms; write LossTerms(value)",
    vector: f"its term 'forget' is ({sum(row.num_labels for row in ROWS[:2])},), each term is one number",
    number: "its term 'forget' is float, each term is one number",
    detached: "its term 'forget' has no gradient; compute it from the scores it is given",
    embedding_alone: "its term 'forget' has no gradient; compute it from the scores it is given",
    all_detached: "its value has no gradient, so nothing would be learned",
    nan: "its term 'forget' is nan on two rows",
    infinite: "its term 'retain' is -inf on two rows",
    vector_beside: "its term 'drift' is (",
    named_twice: "one of its other terms is named 'retain', which it has already",
    root_of_zero: "its gradient is not finite on two rows though its value is",
    raising: "it fails on two rows (AttributeError: 'Scores' object has no attribute 'lobprobs'",
    in_place: "its gradient cannot be computed (RuntimeError: ",
}


@pytest.mark.parametrize("loss", MISTAKES, ids=lambda loss: loss.__name__)
def test_a_mistake_is_one_line_that_names_it(loss):
    (said,) = found(loss)
    assert said.startswith(f"loss=mine: {MISTAKES[loss]}"), said
    assert "\n" not in said


def test_knobs_count():
    (said,) = found(gd, retain_weight=math.nan)
    assert said == "loss=mine: its value is nan on two rows; see its weights"
    (said,) = found(gd, wieght=1)
    assert "unexpected keyword argument 'wieght'" in said


def test_random_numbers_of_the_run_stay_what_they_are():
    def noisy(forget, retain):
        return LossTerms(forget.mean(cross_entropy) * torch.rand(()))

    before = torch.random.get_rng_state()
    assert found(noisy) == []
    assert torch.equal(torch.random.get_rng_state(), before)
