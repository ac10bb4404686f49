"""What an init gets of the Fisher: measured once for all ranks, by the way that fits."""

import logging
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from loku_exp.data.records import Sequence
from loku_exp.errors import UserError
from loku_exp.fisher import measure as importance
from loku_exp.fisher.hooks import diagonal_fisher, row_weights
from loku_exp.fisher.measure import draw_retain, fisher_measure
from loku_exp.inits.fila import fila
from loku_exp.methods.adapter import Adapter
from loku_exp.models import memory
from loku_exp.models.load import linear_layers
from loku_exp.runtime.cache import Cache
from tests.helpers import tiny_model, tiny_records

RECORDS = tiny_records()
KNOBS = {"group_size": 1, "epsilon": 1e-5, "relative": False, "num_retain": None, "seed": 0}


def measure_with(cache: Cache, model=None, identity="tiny"):
    return fisher_measure(model or tiny_model(), identity, RECORDS.forget, RECORDS.retain, cache)


@pytest.fixture
def ways(monkeypatch) -> list[str]:
    """The ways the Fisher was measured, in order."""
    seen: list[str] = []
    for name in ("reduce_fisher", "sweep_fisher"):
        way = getattr(importance, name)

        def counted(*args, name=name, way=way, **options):
            seen.append(name)
            return way(*args, **options)

        monkeypatch.setattr(importance, name, counted)
    return seen


@pytest.fixture
def progresses(monkeypatch) -> list[list[int]]:
    """Of each progress that is shown, its total and its steps."""
    seen: list[list[int]] = []

    @contextmanager
    def counted(total, *_):
        seen.append([total])
        yield SimpleNamespace(update=seen[-1].append)

    for room in ("hooks", "blockwise"):
        monkeypatch.setattr(f"loku_exp.fisher.{room}.progress", counted)
    return seen


def test_all_ranks_and_target_sets_share_one_measurement(tmp_path, ways):
    cache, factors = Cache(str(tmp_path)), {}
    for rank, targets in ((2, ["q_proj", "v_proj"]), (4, ["all-linear"]), (8, ["all-linear"])):
        model = tiny_model()  # as a rank of a sweep: a run and a process of its own
        layers = Adapter(rank, 2 * rank, 0.0, targets).layers(model, 0)
        factors[rank] = {f.name: f for f in fila(layers, measure_with(cache, model))}
    assert ways == ["reduce_fisher"]
    assert [len(f) for f in factors.values()] == [4, 12, 12]
    measure_with(cache, identity="another model")(**KNOBS)
    measure_with(cache)(**KNOBS | {"group_size": 4})
    assert len(ways) == 3


def test_which_tokens_are_labelled_is_part_of_the_key(tmp_path, ways):
    """The same texts under another template: where the answer begins differs, the ids do not."""
    cache = Cache(str(tmp_path))
    texts = [replace(r, answer=Sequence(r.answer.ids, r.answer.ids)) for r in RECORDS.forget]
    model = tiny_model()
    found = [
        fisher_measure(model, "tiny", forget, RECORDS.retain, cache)(**KNOBS).row_weights
        for forget in (RECORDS.forget, texts)
    ]
    assert len(ways) == 2
    assert not all(torch.equal(weights, found[1][name]) for name, weights in found[0].items())


def test_both_ways_give_the_same_row_weights(tmp_path, ways):
    found = [
        measure_with(Cache(str(tmp_path / way)))(**KNOBS, fisher_pass=way)
        for way in ("hooks", "sweep")
    ]
    assert ways == ["reduce_fisher", "sweep_fisher"]
    assert found[0].row_weights.keys() == found[1].row_weights.keys()
    for name, weights in found[0].row_weights.items():
        assert torch.equal(weights, found[1].row_weights[name])
    assert found[0].epsilon_share == found[1].epsilon_share
    assert found[0].flops < found[1].flops


def test_examples_are_grouped_in_the_order_they_come_in(tmp_path):
    """As released; only where each is a group of its own are equal lengths put together."""
    model, epsilon = tiny_model(), KNOBS["epsilon"]
    layers = linear_layers(model)
    drawn = draw_retain(RECORDS.retain, len(RECORDS.forget), 0)
    sets = [[row.answer for row in rows] for rows in (RECORDS.forget, drawn)]
    of_forget, of_retain = (diagonal_fisher(model, layers, rows, group_size=2) for rows in sets)
    found = measure_with(Cache(str(tmp_path)), model)(**KNOBS | {"group_size": 2}).row_weights
    for name in layers:
        expected = row_weights(of_forget[name], of_retain[name], epsilon)
        torch.testing.assert_close(found[name], expected)


def test_the_way_is_no_part_of_the_key(tmp_path, ways):
    for way in ("hooks", "sweep", "auto"):
        measure_with(Cache(str(tmp_path)))(**KNOBS, fisher_pass=way)
    assert ways == ["reduce_fisher"]


def test_auto_sweeps_where_the_hooks_do_not_fit_and_says_so(tmp_path, ways, monkeypatch, caplog):
    monkeypatch.setattr(memory, "free_memory", lambda _: 50_000)
    with caplog.at_level(logging.INFO):
        measure_with(Cache(str(tmp_path)))(**KNOBS)
    assert ways == ["sweep_fisher"]
    assert "block by block" in caplog.text


def test_where_neither_way_fits_all_layers_are_measured_at_once(
    tmp_path, ways, monkeypatch, caplog
):
    monkeypatch.setattr(memory, "free_memory", lambda _: 50_000)
    monkeypatch.setattr(importance, "cannot_sweep", lambda *_: "its blocks hand on more")
    with caplog.at_level(logging.INFO):
        found = measure_with(Cache(str(tmp_path)))(**KNOBS)
    assert ways == ["reduce_fisher"]
    assert found.fisher_pass == "hooks"
    assert "at once: its blocks hand on more" in caplog.text


def test_what_is_needed_is_the_sums_of_both_sets_and_the_activations(tmp_path, monkeypatch):
    """On a CPU both sets' sums lie in main memory, 4 bytes a weight each; a pass has two texts."""
    asked, model = [], tiny_model()
    monkeypatch.setattr(importance, "fits", lambda needed, _: asked.append(needed) or True)
    measure_with(Cache(str(tmp_path)), model)(**KNOBS)
    weights = sum(layer.weight.numel() for layer in linear_layers(model).values())
    longest = max(len(row.answer.ids) for row in RECORDS.forget + RECORDS.retain)
    assert asked == [2 * 4 * weights + memory.activation_bytes(model, 2, longest)]


@pytest.mark.parametrize("relative", [False, True])
def test_the_share_below_epsilon_is_counted_over_all_weights(tmp_path, relative):
    model = tiny_model()
    epsilon = 0.5 if relative else 1e-4
    found = measure_with(Cache(str(tmp_path)), model)(
        **KNOBS | {"epsilon": epsilon, "relative": relative}
    )
    drawn = [row.answer for row in draw_retain(RECORDS.retain, len(RECORDS.forget), 0)]
    retain = diagonal_fisher(model, linear_layers(model), drawn)
    below = [f < (epsilon * f.mean() if relative else epsilon) for f in retain.values()]
    share = float(torch.cat([weights.flatten() for weights in below]).double().mean())
    assert 0 < share < 1
    assert found.epsilon_share == pytest.approx(share, abs=1e-12)


def test_as_many_retain_examples_as_asked_for_or_as_there_are_to_forget(tmp_path):
    model, cache = tiny_model(), Cache(str(tmp_path))

    def weights(forget, retain, number):
        measure = fisher_measure(model, "tiny", forget, retain, cache)
        return measure(**KNOBS | {"num_retain": number}).row_weights

    drawn = draw_retain(RECORDS.retain, 2, seed=0)
    assert len({row.row for row in drawn}) == 2
    by_hand = weights(RECORDS.forget[:2], drawn, None)
    for found in (
        weights(RECORDS.forget[:2], RECORDS.retain, None),
        weights(RECORDS.forget[:2], RECORDS.retain, 2),
    ):
        torch.testing.assert_close(found, by_hand)
    with pytest.raises(UserError, match="wants 7 retain examples, the dataset has 6"):
        weights(RECORDS.forget, RECORDS.retain, 7)
    weights(RECORDS.forget, RECORDS.retain, 6)  # all there are


def test_without_retain_examples_nothing_can_be_measured_on_them():
    """RILA ended in a KeyError, and FILA was told to draw fewer than 0."""
    for count in (0, 4):
        with pytest.raises(UserError, match="dataset has 0; give it some, or use an init that"):
            draw_retain([], count, seed=0)


@pytest.mark.parametrize("way", ["hooks", "sweep"])
def test_progress_comes_to_its_end_and_no_further(tmp_path, way, progresses):
    measure_with(Cache(str(tmp_path)))(**KNOBS, fisher_pass=way)
    assert progresses
    for total, *steps in progresses:
        assert sum(steps) == total


@pytest.mark.parametrize(("device", "sets"), [("cpu", 2), ("meta", 1)])
def test_beside_main_memory_the_sums_of_one_set_are_held_at_a_time(device, sets, monkeypatch):
    asked, model = [], tiny_model().to(device)
    monkeypatch.setattr(importance, "fits", lambda needed, _: asked.append(needed) or True)
    monkeypatch.setattr(importance, "activation_bytes", lambda *_: 7)
    layers = linear_layers(model)
    assert not importance._wants_sweep(model, layers, 2, 10)
    assert asked == [4 * sets * sum(layer.weight.numel() for layer in layers.values()) + 7]
