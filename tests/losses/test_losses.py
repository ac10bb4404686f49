"""Losses: by hand, against autograd in float64, and against whole logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from loku_exp.config.groups import conf_dir, options_of
from loku_exp.data.batches import pad
from loku_exp.data.records import IGNORED
from loku_exp.losses.builtin import ga, gd, ihl
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.losses.terms import cross_entropy, inverted_hinge
from loku_exp.models.head import apply_term
from tests.helpers import assert_defaults_are_the_yamls, random_sequence, tiny_model


def test_inverted_hinge_by_hand():
    # p = softmax(log 1, log 2, log 5) = 1/8, 2/8, 5/8
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    assert inverted_hinge(logits, torch.tensor([2])).item() == pytest.approx(1 + 5 / 8 - 2 / 8)
    assert inverted_hinge(logits, torch.tensor([0])).item() == pytest.approx(1 + 1 / 8 - 5 / 8)
    _, gradient = inverted_hinge.with_gradient(logits.clone(), torch.tensor([2]))
    p, q = 5 / 8, 2 / 8  # label, runner-up
    by_hand = [1 / 8 * (q - p), -q * (1 - q + p), p * (1 - p + q)]
    assert gradient[0].tolist() == pytest.approx(by_hand)
    assert sum(by_hand) == pytest.approx(0)  # softmax does not see a constant


def test_cross_entropy_by_hand():
    logits = torch.tensor([[1.0, 2.0, 5.0]]).log()
    values, gradient = cross_entropy.with_gradient(logits.clone(), torch.tensor([1]))
    assert values.item() == pytest.approx(math.log(4))
    assert gradient[0].tolist() == pytest.approx([1 / 8, 2 / 8 - 1, 5 / 8])


def test_inverted_hinge_limits():
    certain = torch.tensor([[50.0, 0.0, 0.0]])
    assert inverted_hinge(certain, torch.tensor([0])).item() == pytest.approx(2)
    assert inverted_hinge(certain, torch.tensor([1])).item() == pytest.approx(0)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 7),
    vocabulary=st.integers(2, 40),
    scale=st.floats(0.01, 20),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("term", [cross_entropy, inverted_hinge], ids=["ce", "ihl"])
def test_closed_form_is_the_derivative_of_the_formula(term, n, vocabulary, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocabulary, (n,), generator=generator)
    logits.requires_grad_()
    expected_values = term(logits, labels)
    (expected_gradient,) = torch.autograd.grad(expected_values.sum(), logits)
    values, gradient = term.with_gradient(logits.detach().clone(), labels)
    torch.testing.assert_close(values, expected_values.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("term", [cross_entropy, inverted_hinge], ids=["ce", "ihl"])
def test_formula_passes_gradcheck(term):
    logits = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: term(x, torch.tensor([0, 8, 3, 3, 1])), (logits,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("term", [cross_entropy, inverted_hinge], ids=["ce", "ihl"])
def test_head_passes_gradcheck(term, bias):
    head = nn.Linear(4, 11, bias=bias, dtype=torch.float64).requires_grad_(False)
    hidden = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(11, (7,))
    assert torch.autograd.gradcheck(lambda x: apply_term(term, x, labels, head, 3), (hidden,))


def test_bf16_ties_take_the_first_runner_up():
    logits = torch.tensor([[3.0, 2.0, 2.0, 2.0]], dtype=torch.bfloat16).float()
    _, gradient = inverted_hinge.with_gradient(logits.clone(), torch.tensor([0]))
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(inverted_hinge(logits, torch.tensor([0])).sum(), logits)
    torch.testing.assert_close(gradient, expected)
    assert gradient[0, 1] < gradient[0, 2]
    assert gradient[0, 2] == gradient[0, 3]


BATCHES = {
    "forget": pad(
        [random_sequence(9, 3, 61, 0), random_sequence(5, 0, 61, 1), random_sequence(7, 6, 61, 2)]
    ),
    "retain": pad([random_sequence(6, 2, 61, 3), random_sequence(11, 4, 61, 4)]),
}


def loss_and_gradients(model, loss, *, frozen_head, **options):
    for name, parameter in model.named_parameters():
        is_head = name in ("lm_head.weight", "lm_head.bias", "transformer.wte.weight")
        parameter.requires_grad_(not (is_head and frozen_head))
        parameter.grad = None
    inputs = {name: Scores(model, BATCHES[name], **options) for name in ("forget", "retain")}
    if loss is ga:
        del inputs["retain"]
    terms = loss(**inputs)
    terms.total.backward()
    return terms, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", [ga, gd, ihl])
@pytest.mark.parametrize("frozen_head", [True, False])
@pytest.mark.parametrize(("tied", "bias"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("chunk_rows", [1, 4, None])
def test_chunked_head_equals_plain_logits(loss, frozen_head, tied, bias, chunk_rows):
    model = tiny_model(tied, bias)
    plain, plain_gradients = loss_and_gradients(model, loss, frozen_head=frozen_head, plain=True)
    chunked, gradients = loss_and_gradients(
        model, loss, frozen_head=frozen_head, chunk_rows=chunk_rows
    )
    torch.testing.assert_close(chunked.total, plain.total, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-4, atol=1e-6)


def test_chunked_head_equals_plain_logits_in_bf16():
    model = tiny_model(dtype=torch.bfloat16)
    plain, plain_gradients = loss_and_gradients(model, ihl, frozen_head=True, plain=True)
    chunked, gradients = loss_and_gradients(model, ihl, frozen_head=True, chunk_rows=2)
    torch.testing.assert_close(chunked.total, plain.total, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=0.1, atol=2e-3)


def test_chunked_head_equals_plain_logits_under_autocast():
    model = tiny_model()
    with torch.autocast("cpu", torch.bfloat16):
        plain, plain_gradients = loss_and_gradients(model, ihl, frozen_head=True, plain=True)
        chunked, gradients = loss_and_gradients(model, ihl, frozen_head=True, chunk_rows=2)
    torch.testing.assert_close(chunked.total, plain.total, rtol=1e-3, atol=1e-3)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    norm = sum(g.norm() ** 2 for g in plain_gradients.values()) ** 0.5
    difference = sum((g - plain_gradients[n]).norm() ** 2 for n, g in gradients.items()) ** 0.5
    assert difference < 0.05 * norm


def official_loss(model, name):
    """The released losses, written the slow way: one position at a time over whole softmaxes."""
    values = {}
    for batch_name, batch in BATCHES.items():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        ce, hinge = [], []
        for row, labels in enumerate(batch["labels"]):
            for column in range(1, len(labels)):
                if labels[column] != IGNORED:
                    p = logits[row, column - 1].float().softmax(-1)
                    others = torch.cat([p[: labels[column]], p[labels[column] + 1 :]])
                    ce.append(-p[labels[column]].log())
                    hinge.append(1 + p[labels[column]] - others.max())
        values[batch_name] = torch.stack(ce).mean(), torch.stack(hinge).mean()
    forget_ce, forget_hinge = values["forget"]
    return {
        "ga": -forget_ce,
        "gd": -forget_ce + values["retain"][0],
        "ihl": forget_hinge + values["retain"][0],
    }[name]


@pytest.mark.parametrize("loss", [ga, gd, ihl])
def test_losses_equal_a_loop_over_positions(loss):
    model = tiny_model()
    terms, _ = loss_and_gradients(model, loss, frozen_head=True)
    torch.testing.assert_close(
        terms.total, official_loss(model, loss.__name__), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("loss", [ga, gd, ihl])
def test_padding_and_masked_positions_change_nothing(loss):
    model = tiny_model()
    before, gradients = loss_and_gradients(model, loss, frozen_head=True)
    wide = {}
    for name, batch in BATCHES.items():
        pads = torch.full((len(batch["labels"]), 5), IGNORED)
        wide[name] = batch | {
            "labels": torch.cat([batch["labels"], pads], 1),
            "input_ids": torch.cat([batch["input_ids"], torch.full_like(pads, 7)], 1),
            "attention_mask": torch.cat([batch["attention_mask"], torch.zeros_like(pads)], 1),
        }
    original = dict(BATCHES)
    try:
        BATCHES.update(wide)
        after, wide_gradients = loss_and_gradients(model, loss, frozen_head=True)
    finally:
        BATCHES.update(original)
    torch.testing.assert_close(after.total, before.total, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(wide_gradients[name], gradient, rtol=1e-4, atol=1e-6)


def test_ga_runs_no_retain_pass():
    model = tiny_model()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    loss_and_gradients(model, ga, frozen_head=True)
    assert len(calls) == 1


def test_retain_weight_scales_the_retain_term_only():
    terms = LossTerms(torch.tensor(2.0), torch.tensor(3.0), retain_weight=0.5)
    assert terms.total == 3.5
    assert LossTerms(torch.tensor(2.0)).total == 2.0
    assert LossTerms(torch.tensor(2.0), torch.tensor(3.0)).total == 5.0
    others = {"rol": torch.tensor(0.25), "other": torch.tensor(1.0)}
    assert LossTerms(torch.tensor(2.0), others=others).total == 3.25


def test_a_term_without_closed_form_is_differentiated():
    """A foreign loss: the squared probability of the label, written as a plain function."""
    model = tiny_model()

    def squared(logits, labels):
        return logits.softmax(-1).gather(1, labels[:, None]).squeeze(1) ** 2

    def foreign(forget, retain):
        return LossTerms(forget.mean(squared))

    plain, plain_gradients = loss_and_gradients(model, foreign, frozen_head=True, plain=True)
    chunked, gradients = loss_and_gradients(model, foreign, frozen_head=True, chunk_rows=2)
    torch.testing.assert_close(chunked.total, plain.total)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-4, atol=1e-7)


def test_logprobs_and_sequence_sums_equal_whole_logits():
    model, batch = tiny_model(), BATCHES["forget"]
    scores = Scores(model, batch)
    sums = scores.sequence_sums(scores.logprobs())
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for row, labels in enumerate(batch["labels"]):
        logprobs = logits[row].log_softmax(-1)
        expected = sum(
            logprobs[t - 1, labels[t]] for t in range(1, len(labels)) if labels[t] != IGNORED
        )
        torch.testing.assert_close(sums[row], expected, rtol=1e-5, atol=1e-5)


def test_hidden_is_the_models_own():
    model, batch = tiny_model(), BATCHES["forget"]
    expected = model.transformer(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    torch.testing.assert_close(Scores(model, batch).hidden(-1), expected)


def test_hidden_states_of_layers_cost_one_pass_and_no_logits():
    model, batch = tiny_model(), BATCHES["forget"]
    whole = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        output_hidden_states=True,
    ).hidden_states
    shown = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: shown.append(output.shape[1]))
    scores = Scores(model, batch)
    for layer, expected in enumerate(whole):
        torch.testing.assert_close(scores.hidden(layer), expected)
    assert shown == [0]


def test_the_target_is_asked_once():
    scores = Scores(tiny_model(), BATCHES["forget"], as_target=torch.no_grad)
    assert scores.reference is scores.reference


@pytest.mark.parametrize("name", options_of("loss", None))
def test_called_without_knobs_it_is_the_yamls(name):
    """Who calls the function in a notebook gets what the bench runs."""
    assert_defaults_are_the_yamls(conf_dir() / "loss" / f"{name}.yaml")
