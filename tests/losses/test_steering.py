"""RMU: by hand, and beside a loop over positions."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from loku_exp.data.batches import pad
from loku_exp.data.records import IGNORED
from loku_exp.losses.dry_run import problems
from loku_exp.losses.scores import Scores
from loku_exp.losses.steering import rmu
from tests.helpers import random_sequence
from tests.losses.oracle import BATCHES, ce, check, mean, moved


class Still(nn.Module):
    """Sixteen layers whose states (B, T, 4) are all one number."""

    def __init__(self, value):
        super().__init__()
        self.value, self.head = nn.Parameter(torch.tensor(value)), nn.Linear(4, 61)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, **_):
        states = self.value * torch.ones(*input_ids.shape, 4)
        self.head(states)
        zeros = torch.zeros_like(states)
        return SimpleNamespace(hidden_states=[*[zeros] * 8, states, *[zeros] * 8])


def test_rmu_by_hand():
    batch = pad([random_sequence(5, 2, 61, 0)])

    def scores(value):
        return Scores(Still(value), batch, as_target=torch.no_grad)

    # |0 - 2 u|^2 / 4 = 1 after eight of sixteen blocks, the embedding first
    terms = rmu(scores(0.0), scores(3.0))
    assert terms.forget.item() == pytest.approx(1.0)
    assert terms.retain.item() == 0  # the target says the same
    assert not terms.reaches_all
    # |h - 2 u|^2 = |h|^2 - 4 h u + 4, with h = 3 in all four, and sum(u) as the seed gives it
    u = torch.rand(4, generator=torch.Generator().manual_seed(0))
    u = u / u.norm()
    by_hand = (36 - 4 * 3 * u.sum().item() + 4) / 4
    assert rmu(scores(3.0), scores(3.0)).forget.item() == pytest.approx(by_hand, rel=1e-5)
    assert rmu(scores(3.0), scores(3.0), layer=2).forget.item() == pytest.approx(1.0)


def states(model, name, layer):
    """By row, the states that predict a labelled token."""
    batch = BATCHES[name]
    found = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        output_hidden_states=True,
    ).hidden_states[layer]
    return [
        [found[row, t - 1] for t in range(1, len(labels)) if labels[t] != IGNORED]
        for row, labels in enumerate(batch["labels"].tolist())
    ]


def distance(a, b):
    return mean(
        mean(((x - y) ** 2).sum() / len(x) for x, y in zip(*rows, strict=True))
        for rows in zip(a, b, strict=True)
    )


def steered(model):
    direction = torch.rand(16, generator=torch.Generator().manual_seed(0))
    goal = 3 * direction / direction.norm()
    here = states(model, "forget", 1)
    return distance(here, [[goal for _ in row] for row in here])


def test_rmu_equals_the_loop():
    def slow(model, target):
        then = [[x.detach() for x in row] for row in states(target, "retain", 1)]
        return steered(model) + 0.5 * distance(states(model, "retain", 1), then)

    check(rmu, slow, reaches_all=False, norm=3.0, retain_weight=0.5)


def test_rmu_with_another_retain_term_equals_the_loop():
    def slow(model, target):
        return steered(model) + ce(model)

    check(rmu, slow, reaches_all=False, layer=1, norm=3.0, retain_term="ce")


def test_a_layer_that_there_is_not_is_refused_before_the_run():
    rows = [random_sequence(7, 3, 61, i) for i in range(2)]
    (said,) = problems("rmu", partial(rmu, layer=3), {"forget": rows, "retain": rows}, 61, layers=2)
    assert "loss.layer=3: the model has 2 layers; take one of 1 to 2" in said
    for layers in (1, 2, 16, 32):
        assert problems("rmu", rmu, {"forget": rows, "retain": rows}, 61, layers=layers) == []


def test_rmu_leaves_the_layers_above_alone():
    model, as_target = moved(frozen_head=True)
    scores = {n: Scores(model, BATCHES[n], as_target=as_target) for n in ("forget", "retain")}
    rmu(**scores, layer=1).total.backward()
    first, second = model.transformer.h
    assert all(p.grad.any() for p in first.mlp.parameters())
    assert all(p.grad is None or not p.grad.any() for p in second.parameters())


@pytest.mark.parametrize(("layers", "depth"), [(1, 1), (4, 2), (16, 8), (32, 16), (30, 15)])
def test_the_layer_is_the_middle_one(layers, depth):
    asked = []
    rows = SimpleNamespace(
        num_layers=layers,
        hidden=lambda layer: asked.append(layer) or torch.zeros(1, 1, 4),
        mask=torch.ones(1, 1, dtype=torch.bool),
        sequence_means=lambda values: values,
    )
    rmu(rows, rows, retain_weight=0.0)
    assert asked == [depth]
