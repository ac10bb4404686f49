"""GELU in one operation beside the eight of transformers."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config
from transformers.activations import ACT2FN, NewGELUActivation

from loku_exp.config.compose import compose_config
from loku_exp.models.activations import fuse_gelu
from loku_exp.models.load import build_model
from tests.helpers import tiny_model

SMALL = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 64}


def fused() -> nn.Module:
    holder = nn.ModuleDict({"act": ACT2FN["gelu_new"]})
    fuse_gelu(holder)
    return holder["act"]


@pytest.mark.parametrize("x", [-3.0, -1.0, 0.0, 0.5, 1.0, 4.0])
def test_value_is_the_formula_by_hand(x):
    tanh = math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    value = fused()(at)
    value.backward()
    slope = (1 + tanh) / 2
    slope += x / 2 * (1 - tanh**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    assert value.item() == pytest.approx(x / 2 * (1 + tanh), abs=1e-15)
    assert at.grad.item() == pytest.approx(slope, abs=1e-15)


def test_in_bf16_it_is_nearer_to_the_formula():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = ACT2FN["gelu_new"](x.double())
    errors = [float((way(x) - exact).norm()) for way in (fused(), ACT2FN["gelu_new"])]
    assert errors[0] < 0.8 * errors[1]


def phi() -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model("phi", num_attention_heads=2, **SMALL)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("make", [tiny_model, phi])
def test_model_gives_the_same_logits_and_keeps_less(make):
    plain = make()
    ours = copy.deepcopy(plain)
    fuse_gelu(ours)
    assert not any(isinstance(module, NewGELUActivation) for module in ours.modules())
    assert ours.config.to_dict() == plain.config.to_dict()
    ids = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(1))
    logits = [model(input_ids=ids).logits for model in (plain, ours)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-5, atol=1e-6)
    mlp_width = 64
    kept = [_kept(model, ids, mlp_width) for model in (plain, ours)]
    layers = 2
    assert kept[0] - kept[1] == 3 * layers


def _kept(model: nn.Module, ids: Tensor, width: int) -> int:
    """Count the tensors of the MLP's width that the graph holds."""
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.shape[-1] == width and tensor.shape[: ids.dim()] == ids.shape:
            held[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(input_ids=ids).logits
    count = len(held)
    out.sum().backward()
    return count


def test_models_are_built_and_loaded_with_it(tmp_path):
    from loku_exp.models.load import load_model
    from loku_exp.models.tokenizer import train_tokenizer

    neo = compose_config(["dataset=toy_tofu", "model=toy_neo"]).model
    built = build_model(neo, train_tokenizer(["a"], 260), 0, torch.device("cpu"))
    built.save_pretrained(tmp_path)
    loaded = load_model(neo, str(tmp_path), torch.device("cpu"))
    for model in (built, loaded):
        assert not any(isinstance(module, NewGELUActivation) for module in model.modules())
        assert model.config.activation_function == "gelu_new"


def test_other_activations_stay():
    config = GPT2Config(vocab_size=61, n_embd=16, n_layer=1, n_head=2, activation_function="relu")
    model = AutoModelForCausalLM.from_config(config)
    before = [type(module) for module in model.modules()]
    fuse_gelu(model)
    assert [type(module) for module in model.modules()] == before
