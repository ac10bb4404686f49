"""A base in four bits: what it computes and trains, against plain layers with rounded weights."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.config import rules
from loku_exp.config.compose import compose_config
from loku_exp.data.batches import pad
from loku_exp.errors import ConfigError, ModelError
from loku_exp.inits.vanilla import vanilla
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.methods.few_bits import check_holdable, hold_in_nf4
from loku_exp.models.flops import StepFlops
from loku_exp.models.load import linear_layers
from loku_exp.runtime.rounding import rounded
from tests.helpers import random_sequence
from tests.methods import tiny
from tests.models.architectures import ARCHITECTURES, GROUPED, build

BATCH = pad([random_sequence(9, 0, 61, 0)])
QLORA = replace(tiny.ADAPTER, base="nf4")


@torch.no_grad()
def with_rounded_weights(model: nn.Module) -> nn.Module:
    for layer in linear_layers(model).values():
        layer.weight.copy_(rounded(layer.weight, 4, "nf4", 64))
    return model


def trained(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_what_it_trains_is_what_rounded_weights_train(tmp_path):
    """A and B after six updates: of a target in four bits, and of one whose weights were rounded before."""
    held = tiny.unlearned(tmp_path / "held", adapter=QLORA)
    plain = tiny.target()
    coarse = replace(plain, load=lambda dtype=None: with_rounded_weights(plain.load(dtype)))
    expected = tiny.unlearned(tmp_path / "coarse", target=coarse)
    whole = tiny.unlearned(tmp_path / "whole")
    found, known, other = (trained(Path(o.subject.path)) for o in (held, expected, whole))
    assert found.keys() == known.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, known[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(v, other[n], rtol=1e-3) for n, v in found.items())
    assert held.report.flops == expected.report.flops


def test_what_comes_out_stands_on_the_target_as_it_was(tmp_path):
    outcome = tiny.unlearned(tmp_path / "run", adapter=QLORA, init=tiny.FILA)
    assert outcome.ship() < 1e-3
    base = outcome.subject.load().unload().state_dict()
    left = tiny.unlearned(tmp_path / "whole", init=tiny.FILA).subject.load().unload().state_dict()
    assert all(torch.equal(value, left[name]) for name, value in base.items())


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES.keys() - {"gpt2"}))
def test_every_architecture_computes_with_the_rounded_weights(kind):
    """Logits, gradients of A and B, and FLOPs; the head, norms and embeddings stay as they are."""
    adapter = Adapter(2, 4, 0.0, ["all-linear"])
    held, coarse = build(kind), with_rounded_weights(build(kind))
    factors = {layer.name: layer for layer in vanilla(adapter.layers(held, seed=0))}
    models = [attach(model, factors, adapter)[0] for model in (held, coarse)]
    hold_in_nf4(models[0])
    ids = torch.arange(5, 25)[None]
    gradients = []
    for model in models:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.linspace(-0.1, 0.1, weight.numel()).view_as(weight))
        logits = model(input_ids=ids, use_cache=False).logits
        logits.logsumexp(-1).sum().backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        gradients.append({"logits": logits.detach()} | grads)
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-3, atol=1e-4, msg=name)
    assert StepFlops.of(models[0]).flops(BATCH) == StepFlops.of(models[1]).flops(BATCH)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("llama4_text", {"moe_layers": [1], "intermediate_size_mlp": 24, "head_dim": 8}),
        ("phimoe", {}),
    ],
)
def test_a_router_that_gives_more_than_a_product_stays_as_it_is(kind, fields):
    """It is an `nn.Linear` by its class, and a plain layer in its place ended in a traceback."""
    sizes = GROUPED | {"vocab_size": 61, "num_local_experts": 4, "pad_token_id": 0} | fields
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    held = copy.deepcopy(whole)
    hold_in_nf4(held.requires_grad_(False))
    (router,) = {type(m) for m in held.modules() if isinstance(m, nn.Linear)} - {nn.Linear}
    assert "Router" in router.__name__
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        ours, theirs = (m(input_ids=ids).logits for m in (held, with_rounded_weights(whole)))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_held_is_refused():
    with pytest.raises(ModelError, match=r"lora.base=nf4: the layers of a GPT2LMHeadModel"):
        check_holdable(build("gpt2"))
    check_holdable(build("llama"))


def test_without_an_adapter_it_is_refused():
    with pytest.raises(ConfigError, match=r"lora.base=nf4: lora=none trains all weights"):
        compose_config(["lora=none", "init=none", "+lora.base=nf4"])


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(rules.parallel, "size", lambda: 2)
    with pytest.raises(ConfigError, match=r"lora.base=nf4: one process trains so"):
        compose_config(["lora.base=nf4"])
