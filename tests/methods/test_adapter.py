"""The function is unchanged by an init, and the same after saving, reloading and folding."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from loku_exp.errors import ModelError
from loku_exp.inits.fila import fila, fila_official
from loku_exp.inits.interface import Importance
from loku_exp.inits.vanilla import vanilla
from loku_exp.methods.adapter import (
    Adapter,
    attach,
    coverage,
    fold,
    load_factors,
    save_factors,
    target_function,
)
from loku_exp.models.load import linear_layers
from loku_exp.models.trained import load_trained
from tests.helpers import tiny_model

ADAPTER = Adapter(rank=3, alpha=6, dropout=0.0, targets=["q_proj", "c_fc", "c_proj"])
IDS = torch.randint(61, (3, 10), generator=torch.Generator().manual_seed(1))


def fisher(**_):
    generator = torch.Generator().manual_seed(0)
    model = tiny_model()
    weights = {
        name: torch.rand(len(layer.weight), generator=generator)
        for name, layer in linear_layers(model).items()
    }
    return Importance(weights, 0.0)


INITS = {
    "vanilla": vanilla,
    "fila": lambda layers: fila(layers, fisher),
    "fila_official": lambda layers: fila_official(layers, fisher),
}


def initialised(name, dtype=torch.float32):
    model = tiny_model(dtype=dtype)
    factors = {f.name: f for f in INITS[name](ADAPTER.layers(model, seed=0))}
    peft_model, share = attach(model, factors, ADAPTER)
    return peft_model, factors, share


def train_a_little(model):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits.float()


@pytest.mark.parametrize("name", INITS)
def test_logits_are_unchanged_by_the_init(name):
    expected = logits(tiny_model())
    model, _, share = initialised(name)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert (share > 0.01) == (name != "vanilla")


@pytest.mark.parametrize("name", INITS)
def test_base_plus_adapter_is_the_weight(name):
    original = linear_layers(tiny_model())
    model, factors, _ = initialised(name)
    for layer, f in factors.items():
        base = model.get_submodule(f"base_model.model.{layer}").base_layer.weight
        torch.testing.assert_close(
            base + ADAPTER.scaling * f.b @ f.a, original[layer].weight, rtol=1e-5, atol=1e-7
        )
        if name != "vanilla":
            assert not torch.allclose(base, original[layer].weight)


def test_bf16_base_keeps_fp32_factors_and_nearly_its_function():
    expected = logits(tiny_model(dtype=torch.bfloat16))
    model, _, _ = initialised("fila", torch.bfloat16)
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert (trained, frozen) == ({torch.float32}, {torch.bfloat16})
    assert (logits(model) - expected).abs().max() < 0.02 * expected.abs().max() + 0.01


def test_only_target_layers_are_adapted_and_only_factors_trained():
    model, factors, _ = initialised("fila")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {
        f"base_model.model.{layer}.lora_{x}.default.weight" for layer in factors for x in "AB"
    }
    assert {layer.split(".")[-1] for layer in factors} == set(ADAPTER.targets)
    assert len(factors) == 2 * 3


@pytest.mark.parametrize("name", INITS)
def test_folded_adapter_gives_the_same_logits_on_the_untouched_base(name, tmp_path):
    model, factors, _ = initialised(name)
    expected = logits(train_a_little(model))
    fold(model, factors, ADAPTER, tmp_path)
    plain = PeftModel.from_pretrained(tiny_model(), str(tmp_path)).eval()
    torch.testing.assert_close(logits(plain), expected, rtol=0, atol=2e-5)
    assert plain.peft_config["default"].to_dict()["r"] == (3 if name == "vanilla" else 6)
    assert not torch.allclose(logits(tiny_model()), expected, atol=1e-3)  # it learned something


@pytest.mark.parametrize("name", INITS)
def test_reloaded_snapshot_gives_the_same_logits_bit_by_bit(name, tmp_path):
    model, factors, _ = initialised(name)
    expected = logits(train_a_little(model))
    save_factors(factors, {"found": 1}, tmp_path / "init.safetensors")
    model.save_pretrained(tmp_path / "snapshot")
    loaded, report = load_factors(tmp_path / "init.safetensors")
    again, _ = attach(tiny_model(), loaded, ADAPTER)
    load_trained(again, tmp_path / "snapshot")
    assert torch.equal(logits(again.eval()), expected)
    assert report == {"found": 1}


def test_full_model_snapshot_is_loaded_back(tmp_path):
    trained = train_a_little(tiny_model())
    trained.save_pretrained(tmp_path)
    again = tiny_model()
    load_trained(again, tmp_path)
    assert torch.equal(logits(again), logits(trained))
    with pytest.raises(ModelError, match="lacks the weights"):
        load_trained(tiny_model(tied=False), tmp_path)


@pytest.mark.parametrize("name", [*INITS, "full"])
def test_target_function_is_the_target_before_during_and_after_training(name):
    model = tiny_model() if name == "full" else initialised(name)[0]
    expected = logits(tiny_model())
    as_target = target_function(model)
    after = logits(train_a_little(model))
    with as_target():
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
        assert not torch.is_grad_enabled()
    assert torch.equal(logits(model), after)
    assert not torch.allclose(after, expected, atol=1e-3)


@pytest.mark.parametrize("target_first", [True, False])
@pytest.mark.parametrize("name", [*INITS, "full"])
def test_target_function_is_the_target_under_autocast(name, target_first):
    """Autocast keeps a parameter's cast until its block ends, also when other values take its place."""
    model = tiny_model() if name == "full" else initialised(name)[0]
    as_target = target_function(model)
    with torch.autocast("cpu", torch.bfloat16):
        expected = logits(model)
    train_a_little(model)
    with torch.autocast("cpu", torch.bfloat16):
        trained = logits(model)
    with torch.autocast("cpu", torch.bfloat16):
        first = None if target_first else logits(model)
        with as_target():
            assert torch.equal(logits(model), expected)
        assert torch.equal(logits(model) if first is None else first, trained)
    assert not torch.allclose(trained, expected, atol=1e-2)


def test_target_function_has_no_dropout_and_leaves_training_as_it_was():
    adapter = Adapter(rank=3, alpha=6, dropout=0.5, targets=ADAPTER.targets)
    model = tiny_model()
    factors = {f.name: f for f in INITS["fila"](adapter.layers(model, seed=0))}
    model, _ = attach(model, factors, adapter)
    as_target = target_function(model)
    frozen = model.base_model.model.transformer.h[0].eval()
    model.train()
    frozen.eval()
    modes = [module.training for module in model.modules()]
    with as_target():
        torch.testing.assert_close(logits(model), logits(tiny_model()), rtol=0, atol=1e-5)
    assert [module.training for module in model.modules()] == modes


def test_target_that_matches_no_layer_raises():
    adapter = Adapter(3, 6, 0.0, ["q_proj", "fc1"])
    with pytest.raises(
        ModelError, match=r"'fc1' matches no linear layer; this model has c_fc, c_proj"
    ):
        adapter.layers(tiny_model(), seed=0)


def test_no_targets_at_all_raise():
    with pytest.raises(ModelError, match=r"targets is empty; name layers in model\.lora_targets"):
        Adapter(3, 6, 0.0, []).layers(tiny_model(), seed=0)


def test_names_that_mean_other_modules_too_are_given_whole(tmp_path):
    """The output head, or a module of another kind, may be called as an adapted layer is."""
    model = tiny_model()
    for block in model.transformer.h:
        block.q_proj = torch.nn.Identity()
    factors = {f.name: f for f in vanilla(Adapter(2, 4, 0.0, ["q_proj"]).layers(model, seed=0))}
    adapted, _ = attach(model, factors, Adapter(2, 4, 0.0, ["q_proj"]))
    assert set(adapted.peft_config["default"].to_dict()["target_modules"]) == set(factors)
    assert len([p for p in adapted.parameters() if p.requires_grad]) == 2 * len(factors) == 4
    assert isinstance(adapted.base_model.model.transformer.h[0].q_proj, torch.nn.Identity)


@pytest.mark.parametrize("kind", ["gpt_neox", "mixtral", "gpt2", "mamba"])
def test_full_snapshots_that_are_saved_under_other_names_are_loaded_back(kind, tmp_path):
    from tests.models.architectures import build

    trained = train_a_little(build(kind))
    trained.save_pretrained(tmp_path)
    again = build(kind)
    assert not torch.equal(logits(again), logits(trained))
    load_trained(again, tmp_path)
    assert torch.equal(logits(again), logits(trained))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(
        next(name for name in tensors if (".1." in name and "norm" in name) or "ln_1" in name)
    )
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks the weights"):
        load_trained(again, tmp_path)


def test_mixtral_says_what_it_leaves_out():
    from tests.models.architectures import build

    share, left_out = coverage(build("mixtral"), ["all-linear"])
    # a block: q and o (16, 16), k and v (8, 16); 4 experts of (48, 16) and (16, 24), a router (4, 16)
    assert share == pytest.approx(768 / (768 + 4 * (48 * 16 + 16 * 24) + 4 * 16))
    assert left_out == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj", "mlp.gate"]


def test_what_peft_does_not_adapt_in_mamba():
    from tests.models.architectures import build

    with pytest.raises(
        ModelError, match=r"'out_proj': backbone\.layers\.0\.mixer\.out_proj is taken"
    ):
        Adapter(2, 4, 0.0, ["out_proj"]).layers(build("mamba"), seed=0)
    with pytest.raises(ModelError, match=r"'dt_proj': .* not called .* on in_proj, x_proj"):
        Adapter(1, 4, 0.0, ["dt_proj"]).layers(build("mamba"), seed=0)


def test_rank_larger_than_a_layer_raises():
    with pytest.raises(ModelError, match=r"lora\.rank=17 exceeds layer .* of shape \(16, 16\)"):
        Adapter(17, 34, 0.0, ["q_proj"]).layers(tiny_model(), seed=0)


def test_all_linear_leaves_out_the_head():
    names = [layer.name for layer in Adapter(3, 6, 0.0, ["all-linear"]).layers(tiny_model(), 0)]
    assert "lm_head" not in names
    assert len(names) == 2 * 6
