"""Every init of the bench goes on a model, leaves what it computes as it is, and is taken up again."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from loku_exp.config.compose import compose_config
from loku_exp.config.groups import conf_dir, options_of
from loku_exp.inits.interface import Factors, Importance, Layer
from loku_exp.methods.adapter import Adapter
from loku_exp.methods.starting import ready_to_train
from loku_exp.models.load import linear_layers
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.machine import Machine
from loku_exp.subject import Subject
from loku_exp.workspace import Workspace
from tests.helpers import TOKENIZER, assert_defaults_are_the_yamls, tiny_model, tiny_records

IDS = torch.arange(3, 19)[None]
INITS = sorted(set(options_of("init", None)) - {"none"})
TARGETS = ["q_proj", "v_proj", "c_fc"]


def target():
    def load(dtype=None):
        return tiny_model()

    return Subject("target", weights="finetuned_here", identity="tiny", load=load)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", INITS)
def test_it_changes_nothing_at_first_and_is_never_computed_again(name, tmp_path, monkeypatch):
    smaller = ["init.group_size=2"] if name == "vila" else []  # six examples are few
    chosen = compose_config([f"init={name}", *smaller]).init.chosen()
    machine = Machine("cpu", {"model": "float32", "unlearning": "none"}, "eager", 1, 1)
    workspace = Workspace(tmp_path / "run", Cache(tmp_path / "cache"), 0, machine, TOKENIZER)
    workspace.folder.mkdir()
    adapter = Adapter(2, 4, 0.0, TARGETS)
    started = ready_to_train(target(), tiny_records(), workspace, chosen, adapter)
    torch.testing.assert_close(logits(started.model), logits(tiny_model()), rtol=0, atol=1e-4)
    adapted = {n for n in linear_layers(tiny_model()) if n.rpartition(".")[2] in TARGETS}
    assert started.factors.keys() == adapted
    assert any(bool(f.a.count_nonzero()) for f in started.factors.values())

    def never(*_, **__):
        raise AssertionError("it was computed again")

    monkeypatch.setattr("loku_exp.methods.starting.initial_factors", never)
    again = ready_to_train(target(), tiny_records(), workspace, chosen, adapter)
    for layer, factors in started.factors.items():
        assert torch.equal(again.factors[layer].a, factors.a)
        assert torch.equal(again.factors[layer].b, factors.b)
    assert again.report == started.report


@pytest.mark.parametrize("name", INITS)
def test_called_without_knobs_it_is_the_yamls(name):
    """Who calls the function in a notebook gets what the bench runs."""
    assert_defaults_are_the_yamls(conf_dir() / "init" / f"{name}.yaml")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Layer, {"name": "one", "weight": IDS, "rank": 2, "scaling": 1.0, "seed": 0}),
        (Factors, {"name": "one", "a": IDS, "b": IDS}),
        (Importance, {"row_weights": {"one": IDS}, "epsilon_share": 0.5}),
    ],
)
def test_nobody_changes_what_an_init_was_given_or_gave(kind, fields):
    """One measurement is shared by all inits and ranks of a process."""
    value = kind(**fields)
    for name, before in fields.items():
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)
        assert getattr(value, name) is before
