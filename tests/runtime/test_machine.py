"""What ``auto`` becomes on a machine, and what is said where a device is not there."""

import pytest
import torch

from loku_exp.config.compose import compose_config
from loku_exp.errors import ModelError
from loku_exp.runtime.machine import resolve_attention, resolve_autocast, resolve_device
from loku_exp.stages.machine import machine_of, on_this_machine

CPU = torch.device("cpu")


def test_autocast_takes_bfloat16_only_where_the_hardware_has_it(monkeypatch):
    cuda = torch.device("cuda")
    for native in (True, False):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, native=native: including_emulation or native,
        )
        assert resolve_autocast("auto", cuda) == ("bfloat16" if native else "none")
    for flags, expected in (
        ({}, "none"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags, raising=False)
        assert resolve_autocast("auto", CPU) == expected
    assert resolve_autocast("none", cuda) == "none"


def test_attention_is_flash_only_on_cuda_in_half_precision_where_installed(monkeypatch):
    cuda = torch.device("cuda")
    assert resolve_attention("eager", cuda, "bfloat16") == "eager"
    assert resolve_attention("auto", cuda, "bfloat16") == "auto"  # not installed here
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    assert resolve_attention("auto", cuda, "bfloat16") == "flash_attention_2"
    assert resolve_attention("sdpa", cuda, "bfloat16") == "sdpa"
    assert resolve_attention("auto", cuda, "float32") == "auto"
    assert resolve_attention("auto", CPU, "bfloat16") == "auto"


@pytest.mark.parametrize("device", ["foo", "cuda:99", "mps:7", "cpu:x"])
def test_a_device_that_is_not_there_is_one_line(device):
    with pytest.raises(ModelError, match=f"^device={device}: not available here .*set device=cpu$"):
        resolve_device(device)


def test_device_auto_is_the_accelerator_where_there_is_one(monkeypatch):
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(device) or torch.empty(0))
    resolve_device("auto")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    resolve_device("auto")
    assert asked == ["cuda", "cuda:1"]  # under torchrun each process takes its own


def test_a_machine_holds_what_auto_became(monkeypatch):
    config = compose_config(["training.autocast=auto", "model.finetuning.autocast=auto"])
    assert (config.device, config.training.autocast) == ("auto", "auto")
    assert config.model.finetuning.autocast == "auto"
    for flags, became in (({}, "none"), ({"amx_bf16": True}, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags, raising=False)
        resolved = on_this_machine(config)
        machine = machine_of(resolved)
        assert machine.device == resolved.device == "cpu"
        precision = {"model": "float32", "finetuning": became, "unlearning": became}
        assert machine.precision == precision
        assert (machine.attention, machine.threads, machine.processes) == ("eager", 1, 1)
        assert "auto" not in (resolved.training.autocast, resolved.model.finetuning.autocast)
        assert on_this_machine(resolved) == resolved  # nothing is left to resolve
