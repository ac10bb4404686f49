"""What an init gets of the Fisher: measured once for all ranks, by the way that fits."""

import logging
from dataclasses import replace

import pytest
import torch

from loku_exp.data.records import Sequence
from loku_exp.fisher import measure as importance
from loku_exp.fisher.measure import fisher_measure
from loku_exp.inits.fila import fila
from loku_exp.methods.adapter import Adapter
from loku_exp.models import memory
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
