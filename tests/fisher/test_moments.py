"""Second moments by hooks, against one text after another in float64."""

import pytest
import torch

from loku_exp.data.records import Sequence
from loku_exp.errors import ModelError
from loku_exp.fisher.measure import draw_retain
from loku_exp.fisher.moments import moments_measure, second_moments
from loku_exp.models.load import linear_layers
from tests.helpers import tiny_model, tiny_records
from tests.models.architectures import build

TEXTS = [record.answer for record in tiny_records().forget]


def one_by_one(model, name, side, by):
    """What a layer reads or gives for each text alone, without padding, by a plain hook."""
    seen = []

    def hook(_, args, output):
        seen.append((args[0] if side == "inputs" else output)[0].double())

    handle = model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        for text in TEXTS:
            model(torch.tensor([text.ids]))
    handle.remove()
    rows = [x for text in seen for x in text] if by == "token" else [text.sum(0) for text in seen]
    return sum(torch.outer(x, x) for x in rows) / len(rows)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("by", ["token", "text"])
def test_moments_are_those_of_each_text_alone(side, by):
    model = tiny_model()
    layers = linear_layers(model)
    found = dict(zip(layers, second_moments(model, layers, TEXTS, side=side, by=by), strict=True))
    for name, moment in found.items():
        expected = one_by_one(model, name, side, by)
        assert moment.dtype == (torch.float64 if by == "text" else torch.float32)
        expected = expected.to(moment.dtype)
        torch.testing.assert_close(moment, expected, rtol=1e-4, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_what_little_tells_texts_apart_is_not_lost_beside_what_they_share():
    """Three texts' sums of outputs, much longer than they differ: their moment has rank three."""
    model = tiny_model()
    layers = linear_layers(model)
    name = next(n for n in layers if n.endswith("k_proj"))
    with torch.no_grad():
        layers[name].bias = torch.nn.Parameter(torch.full((len(layers[name].weight),), 3000.0))
    (moment,) = second_moments(model, {name: layers[name]}, TEXTS[:3], side="outputs", by="text")
    values = torch.linalg.eigvalsh(moment)
    noise = torch.finfo(torch.float32).eps ** 2 * len(values) ** 0.5 * values[-1]
    assert int((values > noise).sum()) == 3
    assert float(values[-2]) < float(values[-1]) * torch.finfo(torch.float32).eps


def test_layers_that_do_not_fit_together_are_measured_one_after_another(monkeypatch):
    model = tiny_model()
    layers = linear_layers(model)
    at_once = list(second_moments(model, layers, TEXTS, side="inputs", by="token"))
    rounds = []
    monkeypatch.setattr("loku_exp.fisher.moments.fits", lambda *_: False)
    alone = second_moments(model, layers, TEXTS, side="inputs", by="token", spent=rounds.append)
    for one, other in zip(alone, at_once, strict=True):
        assert torch.equal(one, other)
    assert len(rounds) == len(layers)
    assert min(rounds) > 0


def test_retain_examples_are_drawn_by_a_seed_and_no_more_than_there_are():
    records, model = tiny_records(), tiny_model()
    name = next(iter(linear_layers(model)))
    measure = moments_measure(model, records.forget, records.retain, lambda _: None)
    kind = {"of": "retain", "side": "inputs", "by": "token"}
    (two,), (again,), (other,) = (
        measure([name], **kind, number=2, seed=seed) for seed in (0, 0, 3)
    )
    assert torch.equal(two, again)
    assert not torch.equal(two, other)
    (every,), (more,) = (measure([name], **kind, number=number) for number in (6, 60))
    torch.testing.assert_close(every, more)


def test_a_layer_that_does_not_get_whole_texts_is_refused():
    """OPT hands its feed-forward layers all tokens in one row of (texts x tokens)."""
    model = build("opt").eval()
    layers = {n: m for n, m in linear_layers(model).items() if n.endswith("fc1")}
    texts = [Sequence(text.ids[:5], text.labels[:5]) for text in TEXTS]
    texts = [Sequence(tuple(i % 20 for i in t.ids), t.labels) for t in texts]
    with pytest.raises(ModelError, match=r"fc1 is not called once with the tokens of each text"):
        list(second_moments(model, layers, texts, side="inputs", by="token"))


def test_a_layer_that_is_called_twice_is_refused():
    model = tiny_model()
    blocks = model.transformer.h
    blocks[1].mlp.c_fc = blocks[0].mlp.c_fc
    layers = {"transformer.h.0.mlp.c_fc": blocks[0].mlp.c_fc}
    with pytest.raises(ModelError, match=r"c_fc is not called once"):
        list(second_moments(model, layers, TEXTS, side="inputs", by="token"))


@pytest.mark.parametrize(("by", "size"), [("token", 4), ("text", 8)])
def test_a_round_takes_as_many_layers_as_have_room_with_the_next(monkeypatch, capsys, by, size):
    """A moment is d times d numbers; the first layer is measured whether it fits or not."""
    model = tiny_model()
    layers = linear_layers(model)
    asked = []
    monkeypatch.setattr(
        "loku_exp.fisher.moments.fits", lambda needed, _: asked.append(needed) or True
    )
    list(second_moments(model, layers, TEXTS, side="inputs", by=by))
    sizes = [size * max(layer.weight.shape) ** 2 for layer in layers.values()]
    assert asked == [sum(sizes[:k]) for k in range(2, len(layers) + 1)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("number", "texts"), [(None, 4), (2, 2), (60, 6)])
def test_as_many_retain_examples_as_asked_for_or_as_there_are_to_forget(number, texts):
    records, model = tiny_records(), tiny_model()
    layers = dict([next(iter(linear_layers(model).items()))])
    kind = {"side": "inputs", "by": "token"}
    measure = moments_measure(model, records.forget[:4], records.retain, lambda _: None)
    (found,) = measure(list(layers), of="retain", number=number, **kind)
    drawn = [record.answer for record in draw_retain(records.retain, texts, seed=0)]
    (expected,) = second_moments(model, layers, drawn, **kind)
    assert torch.equal(found, expected)
