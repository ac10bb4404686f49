"""Compressing an adapter, against the singular value decomposition of the whole product."""

import json
import math

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from loku_exp.errors import UserError
from loku_exp.export import exporting
from loku_exp.export.reshaped import compress
from loku_exp.runtime.cache import seal

LAYERS = {"base_model.model.x": (5, 7), "base_model.model.y": (9, 4)}
RANK, ALPHA = 4, 6.0


@pytest.fixture
def adapter(tmp_path):
    torch.manual_seed(0)
    state = {}
    for name, (rows, columns) in LAYERS.items():
        state[f"{name}.lora_A.weight"] = torch.randn(RANK, columns)
        state[f"{name}.lora_B.weight"] = torch.randn(rows, RANK)
    save_file(state, tmp_path / "adapter_model.safetensors")
    config = {"r": RANK, "lora_alpha": ALPHA, "rank_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path


def updates(folder):
    """What plain PEFT adds to each weight: alpha / r B A."""
    config = json.loads((folder / "adapter_config.json").read_text())
    state = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    return {
        name: scale * state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
        for name in LAYERS
    }


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_each_update_is_the_nearest_of_its_rank_and_the_error_is_theirs(adapter, rank):
    before = updates(adapter)
    error = compress(adapter, rank)
    lost = whole = 0.0
    for name, update in updates(adapter).items():
        u, s, vh = torch.linalg.svd(before[name])
        nearest = (u[:, :rank] * s[:rank]) @ vh[:rank]
        torch.testing.assert_close(update, nearest, rtol=1e-4, atol=1e-4)
        lost += float((before[name] - update).square().sum())
        whole += float(before[name].square().sum())
    assert error == pytest.approx(math.sqrt(lost / whole), rel=1e-4)
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == rank


def test_a_layer_narrower_than_the_rank_keeps_its_shape_in_the_file(adapter):
    """A folded adapter may have twice a layer's width in rank: it ended in a traceback of torch."""
    torch.manual_seed(1)
    name = "base_model.model.x"
    state = {f"{name}.lora_A.weight": torch.randn(8, 5), f"{name}.lora_B.weight": torch.randn(6, 8)}
    save_file(state, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 8}))
    before = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    assert compress(adapter, 7) == 0
    state = load_file(adapter / "adapter_model.safetensors")
    assert (len(state[f"{name}.lora_A.weight"]), state[f"{name}.lora_B.weight"].shape[1]) == (7, 7)
    after = state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_what_is_of_a_lower_rank_already_loses_nothing(adapter):
    state = load_file(adapter / "adapter_model.safetensors")
    for name in LAYERS:
        state[f"{name}.lora_A.weight"][2:] = 0
    save_file(state, adapter / "adapter_model.safetensors")
    before = updates(adapter)
    assert compress(adapter, 2) == pytest.approx(0, abs=1e-6)
    for name, update in updates(adapter).items():
        torch.testing.assert_close(update, before[name], rtol=1e-5, atol=1e-5)


def test_an_adapter_of_zeros_loses_nothing(adapter):
    state = {
        name: torch.zeros_like(w)
        for name, w in load_file(adapter / "adapter_model.safetensors").items()
    }
    save_file(state, adapter / "adapter_model.safetensors")
    assert compress(adapter, 1) == 0


@pytest.mark.parametrize("rank", [0, -1, 4, 5])
def test_a_rank_that_is_none_or_not_below_is_refused(adapter, rank):
    with pytest.raises(UserError, match=r"must be at least 1 and below the adapter's rank, 4"):
        compress(adapter, rank)


def test_what_is_no_pair_of_matrices_is_refused(adapter):
    state = load_file(adapter / "adapter_model.safetensors") | {
        "base_model.model.bias": torch.ones(2)
    }
    save_file(state, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="more than linear layers"):
        compress(adapter, 2)


def test_the_tokenizer_of_a_merged_model_is_found_from_anywhere(tmp_path, monkeypatch):
    """A relative folder was taken for a hub id elsewhere, and ~ for a folder of that name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.json").write_text("{}")

    def found(tokenizer, target):
        config = OmegaConf.create({"model": {"tokenizer": tokenizer}, "target": {"path": target}})
        return exporting._tokenizer_of(config, str(base))

    assert found("base", "base") == found(None, "base") == str(base)
    assert found("~/own", "base") == str(tmp_path / "own")
    assert found("me/own", "base") == "me/own"
    seal(base, {})  # it was made here, with the run's tokenizer beside it
    assert found("gone", None) == str(base)
    (base / "tokenizer.json").unlink()
    assert found("me/own", None) == "me/own"
