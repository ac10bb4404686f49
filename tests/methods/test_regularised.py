"""A loss with a regulariser beside it: what it measures, beside a loop over texts and layers, and when."""

import pytest
import torch

from loku_exp.data.batches import pad
from loku_exp.errors import UserError
from loku_exp.inits.interface import Factors
from loku_exp.losses.builtin import ihl
from loku_exp.losses.scores import Scores
from loku_exp.methods import regularised as module
from loku_exp.methods.adapter import attach, target_function
from loku_exp.methods.regularised import Regularised
from loku_exp.models.load import linear_layers
from loku_exp.runtime.chosen import Chosen
from tests.helpers import tiny_model
from tests.methods.tiny import ADAPTER, FILA, IHL, VANILLA, records, same_weights, unlearned

ROWS = records(retain=9)
KNOBS = {"weight": 0.5, "rank": 3, "number": 9, "seed": 0}
ROL = Chosen("rol", "loku_exp.losses.regularisers.rol", ("factors", "moments"), KNOBS)


def regularised(regulariser=ROL, loss=IHL, rows=ROWS):
    parts = {"regulariser": regulariser, "records": rows}
    return Regularised(loss.name, loss.target, loss.inputs, loss.knobs, **parts)


def adapted():
    """A model with an adapter that has moved from where it began, with B not zero there."""
    model = tiny_model()
    generator = torch.Generator().manual_seed(1)
    factors = {
        layer.name: Factors(
            layer.name,
            torch.randn(layer.rank, layer.weight.shape[1], generator=generator) / 8,
            torch.randn(layer.weight.shape[0], layer.rank, generator=generator) / 8,
        )
        for layer in ADAPTER.layers(model, 0)
    }
    model, _ = attach(model, factors, ADAPTER)
    as_target = target_function(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 5)
    return model, as_target


def scored(model, as_target):
    sets = {"forget": ROWS.forget, "retain": ROWS.retain[:4]}
    batches = {name: pad([row.answer for row in rows]) for name, rows in sets.items()}
    return {name: Scores(model, of, as_target=as_target) for name, of in batches.items()}


def slow_rol(model, weight, rank):
    """The term by a loop: the untouched target, a text at a time, every product written out."""
    target = tiny_model()
    total = 0
    for name, layer in linear_layers(target).items():
        if name.split(".")[-1] not in ADAPTER.targets:
            continue
        outputs = []
        handle = layer.register_forward_hook(lambda _m, _i, out, kept=outputs: kept.append(out))
        with torch.no_grad():
            for row in ROWS.retain:
                target(input_ids=torch.tensor([row.answer.ids]))
        handle.remove()
        sums = [out[0].double().sum(0) for out in outputs]
        moment = sum(torch.outer(h, h) for h in sums) / len(sums)
        q = torch.linalg.eigh(moment)[1][:, -rank:].float()
        b = model.get_submodule(f"base_model.model.{name}").lora_B["default"].weight
        for column in range(b.shape[1]):
            for direction in range(rank):
                total = total + (b[:, column] * q[:, direction]).sum() ** 2
    return weight * total


def gradients(model, value):
    model.zero_grad()
    value.backward(retain_graph=True)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_it_equals_a_loop_over_texts_of_the_untouched_target():
    model, as_target = adapted()
    terms = regularised().resolve()(**scored(model, as_target))
    assert list(terms.by_name()) == ["forget", "retain", "rol"]
    slow = slow_rol(model, 0.5, 3)
    torch.testing.assert_close(terms.others["rol"], slow, rtol=1e-4, atol=1e-5)
    ours, theirs = gradients(model, terms.others["rol"]), gradients(model, slow)
    assert ours.keys() == theirs.keys()
    assert all("lora_B" in name for name in ours)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-3, atol=1e-5)
    plain = ihl(**scored(model, as_target))
    torch.testing.assert_close(terms.total, plain.total + slow, rtol=1e-4, atol=1e-4)


def test_it_measures_once_and_follows_b(monkeypatch):
    made, whole = [], module.moments_measure
    monkeypatch.setattr(module, "moments_measure", lambda *given: made.append(1) or whole(*given))
    model, as_target = adapted()
    loss = regularised().resolve()
    first = loss(**scored(model, as_target)).others["rol"]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(2)
    again = loss(**scored(model, as_target)).others["rol"]
    torch.testing.assert_close(again, 4 * first, rtol=1e-4, atol=1e-5)
    assert made == [1]


def test_it_is_fp32_under_autocast():
    model, as_target = adapted()
    with torch.autocast("cpu", torch.bfloat16):
        terms = regularised().resolve()(**scored(model, as_target))
    assert terms.others["rol"].dtype == torch.float32


@pytest.mark.parametrize("init", [VANILLA, FILA], ids=lambda init: init.name)
def test_weight_0_changes_nothing_and_a_large_one_keeps_b_off_the_retain_set(tmp_path, init):
    def with_weight(weight):
        rol = Chosen("rol", ROL.target, ROL.inputs, KNOBS | {"weight": weight})
        return unlearned(tmp_path / str(weight), init=init, loss=regularised(rol))

    plain, none, heavy = (
        unlearned(tmp_path / "plain", init=init),
        with_weight(0.0),
        with_weight(1e3),
    )
    same_weights(plain.subject, none.subject)
    assert len(heavy.report.training["rol_loss"]) == len(plain.report.training["forget_loss"])
    with torch.no_grad():
        left, kept = (float(slow_rol(of.subject.load(), 1.0, 3)) for of in (plain, heavy))
    assert kept < 0.9 * left


def constant(factors):
    return lambda now: 3.0


def nothing_to_call(factors):
    return 1.0


def named_forget(factors):
    return lambda now: next(iter(now.values())).b.sum()


def norm_of_a(factors):
    """One of a user's own, which measures nothing."""
    return lambda now: sum(f.a.square().sum() for f in now.values())


def own(function, name=None):
    return regularised(
        Chosen(name or function.__name__, f"{__name__}.{function.__name__}", ("factors",), {})
    )


def test_one_of_ones_own():
    model, as_target = adapted()
    terms = own(norm_of_a).resolve()(**scored(model, as_target))
    expected = sum(p.square().sum() for n, p in model.named_parameters() if "lora_A" in n)
    torch.testing.assert_close(terms.others["norm_of_a"], expected)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (own(constant), "regulariser=constant: its value is 3.0; it must be one number"),
        (own(nothing_to_call), r"returned 1.0; it returns a function of A and B"),
        (own(named_forget, "forget"), "the loss has a term of that name"),
    ],
)
def test_what_is_no_regulariser_is_said(loss, said):
    with pytest.raises(UserError, match=said):
        loss.resolve()(**scored(*adapted()))
