"""What of a model an attack by rounding touches."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from loku_exp.attacks.quantise import problems, quantise
from loku_exp.errors import ModelError
from loku_exp.methods.wrapper import Wrapper
from loku_exp.models.load import linear_layers, weight_matrix
from loku_exp.runtime.rounding import rounded
from tests.methods import tiny
from tests.models.architectures import GROUPED


def test_linear_layers_are_rounded_and_nothing_else():
    target = tiny.target()
    before, after = target.load(), quantise(target, bits=4, levels="uniform", group=None).load()
    layers = linear_layers(before)
    for name, weight in before.state_dict().items():
        same = torch.equal(weight, after.state_dict()[name])
        assert same != (name.removesuffix(".weight") in layers and name.endswith(".weight")), name
    name, layer = next(iter(layers.items()))
    torch.testing.assert_close(
        linear_layers(after)[name].weight, rounded(layer.weight, 4, "uniform", None)
    )


def test_an_adapter_is_merged_first(tmp_path):
    """What comes out is the rounded sum, not a rounded base with the adapter on it."""
    outcome = tiny.unlearned(tmp_path / "run", init=tiny.VANILLA)
    summed = outcome.subject.load().merge_and_unload()
    after = quantise(outcome.subject, bits=8, levels="uniform", group=None).load()
    for name, layer in linear_layers(summed).items():
        expected = rounded(layer.weight, 8, "uniform", None)
        torch.testing.assert_close(linear_layers(after)[name].weight, expected)


def test_a_wrapper_is_kept_and_what_it_wraps_is_rounded():
    whole = tiny.target()
    wrapped = replace(whole, load=lambda dtype=None: Wrapper(whole.load(dtype)).eval())
    model = quantise(wrapped, bits=4, levels="nf4", group=64).load()
    assert isinstance(model, Wrapper)
    expected = quantise(whole, bits=4, levels="nf4", group=64).load()
    torch.testing.assert_close(tiny.logits(model.wrapped), tiny.logits(expected))


def test_a_weight_stored_the_other_way_round_has_its_scales_by_output_channel():
    layer, twin = Conv1D(3, 5), nn.Linear(5, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(15.0).view(5, 3) ** 2)
    with torch.no_grad():
        twin.weight.copy_(weight_matrix(layer))
        weight_matrix(layer).copy_(rounded(weight_matrix(layer), 4, "uniform", None))
    expected = rounded(twin.weight, 4, "uniform", None)
    torch.testing.assert_close(layer.weight.T, expected)


def test_identity_follows_subject_and_knobs():
    knobs = [(8, "uniform", None), (4, "uniform", None), (4, "nf4", None), (4, "nf4", 64)]
    made = [quantise(tiny.target(), bits=b, levels=v, group=g).identity for b, v, g in knobs]
    other = replace(tiny.target(), identity="another model")
    made.append(quantise(other, bits=4, levels="nf4", group=64).identity)
    assert len({*made, tiny.target().identity}) == 6


def test_eight_bits_of_nf4_are_refused():
    fine = [problems("mine", bits=4, levels="nf4"), problems("mine", bits=8, levels="uniform")]
    assert fine == [[], []]
    (said,) = problems("mine", bits=8, levels="nf4")
    assert said.startswith("attacks.mine.bits=8: nf4 has 4; set it to that, or attacks.mine.levels")


@pytest.mark.parametrize("kind", ["olmoe", "gpt_oss", "llama4_text", "mixtral"])
def test_stacked_experts_are_rounded_too_each_by_its_output_channels(kind):
    """Against a weight taken expert by expert out of the layer's own product."""
    model = experts(kind)
    before = copy.deepcopy(model)
    changed = quantised(model)
    found = {
        name: p for name, p in before.named_parameters() if p.ndim == 3 and ".experts." in name
    }
    assert len(found) == 4
    other_way_round = kind in ("gpt_oss", "llama4_text")
    for name, stacked in found.items():
        for one, expert in enumerate(stacked):
            plain = expert.T if other_way_round else expert
            got = changed.get_parameter(name)[one]
            expected = rounded(plain, 4, "uniform", None)
            torch.testing.assert_close(got.T if other_way_round else got, expected)
            assert not torch.equal(got, expert)


def test_experts_stored_in_a_way_of_their_own_are_refused():
    with pytest.raises(ModelError, match=r"the experts of a \w+ \(\w+\) cannot be taken apart"):
        quantised(experts("jetmoe"))


def experts(kind):
    own = {
        "llama4_text": {"head_dim": 8, "intermediate_size_mlp": 24},
        "gpt_oss": {"head_dim": 8},
        "jetmoe": {"kv_channels": 8},
    }
    sizes = {"num_local_experts": 2, "num_experts": 2, "num_experts_per_tok": 1}
    sizes |= {"vocab_size": 64, "pad_token_id": 0, "intermediate_size": 16}
    config = AutoConfig.for_model(kind, **GROUPED | sizes | own.get(kind, {}))
    return AutoModelForCausalLM.from_config(config)


def quantised(model):
    subject = replace(tiny.target(), load=lambda dtype=None: copy.deepcopy(model))
    return quantise(subject, bits=4, levels="uniform", group=None).load()
