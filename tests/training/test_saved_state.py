"""What a training goes on from is plain data, and comes back as it was."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from loku_exp.errors import TrainingError
from loku_exp.training.saved_state import SavesWithoutPickle, load_state, save_state


def equal(one, two):
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return list(one) == list(two) and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def test_nested_plain_data_comes_back_with_its_types(tmp_path):
    state = {
        0: {"step": torch.tensor(3.0), "moment": torch.randn(2, 3).to(torch.bfloat16)},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.98), "fused": None, "maximize": False}],
        "draws": (3, (1, 2**32 - 1), None, np.arange(3, dtype=np.uint32)),
        "none": [],
    }
    save_state(state, tmp_path / "state.safetensors")
    assert equal(load_state(tmp_path / "state.safetensors"), state)


def test_draws_go_on_where_other_accelerators_are_seen(tmp_path, monkeypatch):
    """The model's own is what it draws from: the second of two, and then the only one."""
    states = {1: torch.arange(3), 0: torch.zeros(3)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index])
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [states[0], states[1]])
    trainer = object.__new__(SavesWithoutPickle)
    trainer.args = SimpleNamespace(process_index=0, device=torch.device("cuda:1"))
    trainer._save_rng_state(str(tmp_path))

    def set_state(state, device):
        assert device.index == 0  # there is no other
        states[0] = state

    monkeypatch.setattr(torch.cuda, "set_rng_state", set_state)
    trainer.args = SimpleNamespace(process_index=0, device=torch.device("cuda:0"))
    trainer._load_rng_state(str(tmp_path))
    assert torch.equal(states[0], states[1])


def test_an_optimizer_goes_on_to_the_same_bits(tmp_path):
    def made():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)

    def update(model, optimizer, schedule, steps):
        for step in range(steps):
            optimizer.zero_grad()
            (model(torch.full((2, 4), float(step + 1))) ** 2).sum().backward()
            optimizer.step()
            schedule.step()

    model, optimizer, schedule = made()
    update(model, optimizer, schedule, 3)
    save_state([optimizer.state_dict(), schedule.state_dict()], tmp_path / "state.safetensors")
    other, its_optimizer, its_schedule = made()
    other.load_state_dict(model.state_dict())
    states = load_state(tmp_path / "state.safetensors")
    its_optimizer.load_state_dict(states[0])
    its_schedule.load_state_dict(states[1])
    for each in ((model, optimizer, schedule), (other, its_optimizer, its_schedule)):
        update(*each, 3)
    assert torch.equal(model.weight, other.weight)


def test_draws_go_on(tmp_path):
    states = [random.getstate(), np.random.get_state(), torch.random.get_rng_state()]
    save_state(states, tmp_path / "state.safetensors")
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    python, of_numpy, of_torch = load_state(tmp_path / "state.safetensors")
    random.setstate(python)
    np.random.set_state(of_numpy)
    torch.random.set_rng_state(of_torch)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn


def test_what_is_no_plain_data_is_refused(tmp_path):
    with pytest.raises(TypeError, match="Generator is no plain data"):
        save_state({"rng": torch.Generator()}, tmp_path / "state.safetensors")
    assert not (tmp_path / "state.safetensors").exists()


def test_the_file_is_safetensors(tmp_path):
    save_state({"a": torch.ones(2)}, tmp_path / "state.safetensors")
    with safe_open(tmp_path / "state.safetensors", "pt") as opened:
        assert opened.metadata()["state"] == '{"dict": [["a", {"tensor": "0"}]]}'


@pytest.mark.parametrize(
    "metadata", [None, {}, {"state": "{"}, {"state": '{"tensor": "9"}'}, {"state": '{"a": 3}'}]
)
def test_a_file_of_another_kind_is_named(tmp_path, metadata):
    file = tmp_path / "step-00003" / "state.safetensors"
    file.parent.mkdir()
    save_file({"0": torch.ones(2)}, file, metadata=metadata)
    with pytest.raises(TrainingError, match=r"step-00003/state\.safetensors is no state of") as e:
        load_state(file)
    assert "\n" not in str(e.value)
