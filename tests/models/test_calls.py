"""Layers that are called in ways of their own: their Fisher information, the sweep, and adapters.

Each is put into a tiny GPT-Neo in place of its feed-forward part, square, so that rows that are mixed up
have the right shape.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional

from loku_exp.errors import ModelError
from loku_exp.fisher.blockwise import cannot_sweep, sweep_fisher
from loku_exp.fisher.hooks import diagonal_fisher, told_apart
from loku_exp.methods.adapter import Adapter, coverage
from loku_exp.models.calls import bypassed
from loku_exp.models.load import linear_layers
from tests.helpers import random_sequence, tiny_model
from tests.models.test_matrix import by_autograd

SHAPES = [(9, 3), (5, 0), (7, 5), (12, 4), (6, 1)]  # length, masked tokens
SEQUENCES = [random_sequence(*shape, 61, seed) for seed, shape in enumerate(SHAPES)]


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(16, 16), nn.Linear(16, 16)


class Flat(Part):
    """As OPT: (B T, d)."""

    def forward(self, x):
        return self.other(self.one(x.flatten(0, 1)).relu()).view(x.shape)


class Transposed(Part):
    """(T, B, d)."""

    def forward(self, x):
        return self.other(self.one(x.transpose(0, 1)).relu()).transpose(0, 1)


class Permuted(Part):
    """(B T, d), sorted by what is in them."""

    def forward(self, x):
        rows = x.flatten(0, 1)
        order = rows[:, 0].argsort()
        return self.other(self.one(rows[order]).relu())[order.argsort()].view(x.shape)


class Twice(Part):
    def forward(self, x):
        return self.other(self.one(self.one(x).relu()))


class ByName(Part):
    def forward(self, x):
        return self.other(input=self.one(input=x).relu())


class Unused(Part):
    def forward(self, x):
        return self.one(x)


class Bypassed(Part):
    """As Mamba: a weight without its layer."""

    def forward(self, x):
        return functional.linear(self.one(x).relu(), self.other.weight)


class Experts(Part):
    """Each sees some of the tokens, or none."""

    def forward(self, x):
        chosen = x[..., 0] > 0
        out = torch.zeros_like(x)
        for expert, mine in ((self.one, chosen), (self.other, ~chosen)):
            if mine.any():
                out[mine] = expert(x[mine])
        return out


class Fused(Part):
    """All experts in one parameter, and a router."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(torch.randn(2, 16, 16))

    def forward(self, x):
        return self.other(torch.einsum("btd,edo->bto", self.one(x), self.experts))


class Wider(Part):
    """(B, T, 1, d)."""

    def forward(self, x):
        return self.other(self.one(x[:, :, None]).relu())[:, :, 0]


WAYS = [Flat, Transposed, Permuted, Twice, ByName, Unused, Bypassed, Experts, Fused, Wider]


def model_with(part):
    model = tiny_model()
    torch.manual_seed(3)
    for block in model.transformer.h:
        block.mlp = part()
    return model


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("part", WAYS)
def test_fisher_equals_autograd_however_a_layer_is_called(part, group_size):
    model = model_with(part)
    layers = linear_layers(model)
    expected = by_autograd(model, SEQUENCES, group_size)
    sizes = {"group_size": group_size, "micro_batch_size": 4}
    swept = {}
    sweep_fisher(
        model, layers, SEQUENCES, SEQUENCES[:2], lambda n, f, _: swept.update({n: f}), **sizes
    )
    hooked = diagonal_fisher(model, layers, SEQUENCES, **sizes)
    for name, value in expected.items():
        for found in (hooked[name], swept[name]):
            assert (found - value).norm() <= 1e-5 * value.norm(), name
        assert value.any() == (part is not Unused or "other" not in name)


@pytest.mark.parametrize("part", WAYS)
def test_only_layers_called_text_by_text_are_measured_together(part):
    model = model_with(part)
    layers = linear_layers(model)
    by_text, texts = told_apart(model, layers, 1, 8)
    apart = {name.split(".")[-1] for name in layers.keys() - by_text}
    assert apart == {
        Flat: {"one", "other"}, Transposed: {"one", "other"}, Permuted: {"one", "other"},
        Twice: {"one"}, ByName: {"one", "other"}, Unused: {"other"}, Bypassed: {"other"},
        Experts: {"one", "other"}, Fused: set(), Wider: {"one", "other"},
    }[part]  # fmt: skip
    assert texts == (1 if apart else 8)


@pytest.mark.parametrize("part", WAYS)
def test_measuring_leaves_the_model_as_it_was(part):
    model = model_with(part)
    model.lm_head.weight.requires_grad_(False)
    kept = torch.ones_like(model.transformer.h[0].mlp.one.weight)
    model.transformer.h[0].mlp.one.weight.grad = kept
    before = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    layers = linear_layers(model)
    diagonal_fisher(model, layers, SEQUENCES[:2])
    sweep_fisher(model, layers, SEQUENCES[:2], SEQUENCES[:1], lambda *_: None)
    bypassed(model, layers)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert (parameter.grad is kept) == (name == "transformer.h.0.mlp.one.weight")
        assert not parameter._post_accumulate_grad_hooks
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


class Overwritten(Part):
    def forward(self, x):
        x = x.clone()
        y = self.one(x)
        x.mul_(2)
        return self.other(y + x)


class Fickle(Part):
    """Called in another way once a text is long."""

    def forward(self, x):
        return self.other(
            self.one(x.flatten(0, 1)).view(x.shape) if x.shape[1] > 8 else self.one(x)
        )


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (
            Overwritten,
            r"of transformer\.h\.\d\.mlp\.one cannot be measured: its input is overwritten",
        ),
        (
            Fickle,
            r"of transformer\.h\.0\.mlp\.one cannot be measured: it was called 1 times .*\(9, 16\)",
        ),
    ],
)
def test_what_cannot_be_measured_is_named(part, match):
    model = model_with(part)
    with pytest.raises(ModelError, match=match):
        diagonal_fisher(model, linear_layers(model), SEQUENCES)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layers_that_share_a_weight_are_refused():
    model = tiny_model()
    first, second = (block.attn.attention for block in model.transformer.h)
    second.q_proj.weight = first.q_proj.weight
    with pytest.raises(
        ModelError, match=r"h\.0\.\S+q_proj and \S+h\.1\.\S+q_proj share one weight"
    ):
        diagonal_fisher(model, linear_layers(model), SEQUENCES)
    match = r"'q_proj': transformer\.h\.0\.\S+q_proj shares its weight with transformer\.h\.1"
    with pytest.raises(ModelError, match=match):
        Adapter(2, 4, 0.0, ["q_proj"]).layers(model, 0)
    names = {
        layer.name.split(".")[-1] for layer in Adapter(2, 4, 0.0, ["all-linear"]).layers(model, 0)
    }
    assert names == {"k_proj", "v_proj", "out_proj", "c_fc", "c_proj"}


# -- the sweep -----------------------------------------------------------------------------------


def past_the_next_block(model):
    """What the first block gives is also added to what the last one gives."""
    first, last = model.transformer.h
    kept = {}
    first.register_forward_hook(lambda _, __, out: kept.update(out=out[0]))
    last.register_forward_hook(lambda _, __, out: (out[0] + 0.5 * kept["out"], *out[1:]))


def in_place_of_the_input(model):
    """The last block is given twice what it is called with, each time it is called."""
    model.transformer.h[1].register_forward_pre_hook(lambda _, args: (2 * args[0], *args[1:]))


@pytest.mark.parametrize("leak", [past_the_next_block, in_place_of_the_input])
def test_a_sweep_that_would_be_wrong_is_refused(leak):
    model = tiny_model()
    layers = linear_layers(model)
    assert cannot_sweep(model, layers) is None
    leak(model)
    assert "hand on more than hidden states" in cannot_sweep(model, layers)
    with pytest.raises(ModelError, match=r"not right for a GPTNeoForCausalLM.*fisher_pass=hooks$"):
        sweep_fisher(model, layers, SEQUENCES, SEQUENCES, lambda *_: None)
    expected = by_autograd(model, SEQUENCES, 1)
    for name, value in diagonal_fisher(
        model, layers, SEQUENCES
    ).items():  # the way out that is said
        assert (value - expected[name]).norm() <= 1e-5 * expected[name].norm()


# -- adapters ------------------------------------------------------------------------------------


def test_an_adapter_that_would_do_nothing_is_refused():
    model = model_with(Bypassed)
    assert bypassed(model, linear_layers(model)) == {f"transformer.h.{k}.mlp.other" for k in (0, 1)}
    match = (
        r"'other': transformer\.h\.0\.mlp\.other is not called .* on k_proj, one, out_proj, q_proj"
    )
    with pytest.raises(ModelError, match=match):
        Adapter(2, 4, 0.0, ["other"]).layers(model, 0)
    names = [layer.name for layer in Adapter(2, 4, 0.0, ["all-linear"]).layers(model, 0)]
    assert not any(name.endswith("other") for name in names)
    assert len(names) == 2 * 5
    assert bypassed(model_with(Unused), linear_layers(model_with(Unused))) == set()
    assert bypassed(model_with(Experts), linear_layers(model_with(Experts))) == set()


def test_the_share_that_is_adapted_by_hand():
    model = model_with(Fused)
    attention, square = 4 * 16 * 16, 16 * 16
    total = 2 * (attention + 2 * square + 2 * square)
    share, left_out = coverage(model, ["all-linear"])
    assert share == pytest.approx(2 * (attention + 2 * square) / total)
    assert left_out == ["mlp.experts"]
    share, left_out = coverage(model, ["q_proj", "one"])
    assert share == pytest.approx(2 * 2 * square / total)
    attended = [f"attn.attention.{name}_proj" for name in ("k", "out", "v")]
    assert left_out == [*attended, "mlp.experts", "mlp.other"]
    assert coverage(tiny_model(), ["all-linear"]) == (1.0, [])
