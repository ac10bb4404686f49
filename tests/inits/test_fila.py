"""FILA against the closed-form optimum, and the released procedure against its own text."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from loku_exp.errors import UserError
from loku_exp.inits import vila
from loku_exp.inits.fila import fila, fila_official, low_rank, problems
from loku_exp.inits.interface import Importance, Layer
from loku_exp.inits.vanilla import vanilla

SCALING = 2.0


def layer(rows=24, columns=40, rank=4, seed=0, decay=0.5) -> Layer:
    """A matrix with a power-law spectrum."""
    generator = torch.Generator().manual_seed(seed)
    u, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator))
    v, _ = torch.linalg.qr(torch.randn(columns, rows, generator=generator))
    spectrum = torch.arange(1, rows + 1) ** -decay
    return Layer("layer", u * spectrum @ v.T, rank, SCALING, seed)


def importance_of(d: torch.Tensor, calls: list | None = None):
    def fisher(**knobs):
        if calls is not None:
            calls.append(knobs)
        return Importance({"layer": d}, epsilon_share=0.0)

    return fisher


def weighted_error(w: torch.Tensor, x: torch.Tensor, d: torch.Tensor) -> float:
    return float(((d[:, None] * (w - x)).double() ** 2).sum())


def optimum(w: torch.Tensor, d: torch.Tensor, rank: int) -> float:
    """The least weighted error of any rank-r matrix: the tail of the spectrum of D W (float64)."""
    return float(torch.linalg.svdvals(d[:, None].double() * w.double())[rank:].square().sum())


@pytest.mark.parametrize("svd", ["randomized", "exact"])
@pytest.mark.parametrize("rank", [1, 4, 16])
@pytest.mark.parametrize("seed", range(4))
def test_fila_reaches_the_weighted_optimum(svd, rank, seed):
    matrix = layer(rows=90, columns=120, rank=rank, seed=seed)
    d = torch.rand(90, generator=torch.Generator().manual_seed(seed)) * 3 + 0.05
    (factors,) = fila([matrix], importance_of(d), svd=svd)
    x = SCALING * factors.b @ factors.a
    assert torch.linalg.matrix_rank(x) == rank
    error = weighted_error(matrix.weight, x, d)
    assert error == pytest.approx(optimum(matrix.weight, d, rank), rel=1e-3)
    assert (factors.a.shape, factors.b.shape) == ((rank, 120), (90, rank))


def test_no_other_matrix_of_that_rank_is_better():
    matrix, d = layer(), torch.rand(24) + 0.1
    (factors,) = fila([matrix], importance_of(d), svd="exact")
    best = weighted_error(matrix.weight, SCALING * factors.b @ factors.a, d)
    for seed in range(50):
        noise = torch.Generator().manual_seed(seed)
        b = factors.b + 0.01 * torch.randn(factors.b.shape, generator=noise)
        a = factors.a + 0.01 * torch.randn(factors.a.shape, generator=noise)
        assert weighted_error(matrix.weight, SCALING * b @ a, d) >= best


def test_rows_without_importance_stay_in_the_base():
    matrix, d = layer(), torch.rand(24) + 0.1
    d[[3, 7]] = 0
    (factors,) = fila([matrix], importance_of(d))
    assert factors.b[[3, 7]].abs().max() == 0
    assert torch.isfinite(factors.b).all()


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_what_importance_is_measured_in_changes_nothing(scale):
    matrix, d = layer(), torch.rand(24, generator=torch.Generator().manual_seed(0)) + 0.1
    plain, scaled = (next(iter(fila([matrix], importance_of(s * d)))) for s in (1.0, scale))
    torch.testing.assert_close(scaled.b @ scaled.a, plain.b @ plain.a)


def test_low_rank_does_not_touch_the_global_generator_and_is_seeded():
    matrix = layer(90, 120).weight
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = low_rank(matrix, 4, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    for x, y in zip(one, low_rank(matrix, 4, seed=5), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("decay", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("rank", [4, 32])
def test_randomised_step_is_within_a_thousandth_on_a_real_shape(decay, rank):
    matrix = layer(rows=256, columns=1024, rank=rank, decay=decay)
    d = torch.ones(256)
    (factors,) = fila([matrix], importance_of(d))
    error = weighted_error(matrix.weight, SCALING * factors.b @ factors.a, d)
    assert error <= 1.001 * optimum(matrix.weight, d, rank)


def released(w, d, rank, scaling, seed):
    """forget.py of csm9493/efficient-llm-unlearning, line by line, with its generator seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(torch.diag(d) @ w, q=rank)  # niter 2 by default
    s = s / scaling
    a = (v @ torch.diag(torch.sqrt(s))).T
    b = torch.diag(1 / (d + 1e-5)) @ u @ torch.diag(torch.sqrt(s))
    return a, b


def test_fila_official_is_the_released_procedure():
    matrix, calls = layer(), []
    d = torch.rand(24) * 2
    (factors,) = fila_official([matrix], importance_of(d, calls))
    a, b = released(matrix.weight, d, matrix.rank, SCALING, matrix.seed)
    torch.testing.assert_close(factors.a, a, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(factors.b, b, rtol=1e-4, atol=1e-5)
    knobs = {"group_size": 4, "epsilon": 1e-5, "relative": False, "num_retain": None, "seed": 0}
    assert calls == [knobs | {"fisher_pass": "auto"}]
    list(fila_official([matrix], importance_of(d, calls), fisher_micro_batch=2))
    assert calls[1]["group_size"] == 2


@pytest.mark.parametrize(("estimator", "group_size"), [("per_example", 1), ("batch_mean", 3)])
def test_knobs_reach_the_measurement(estimator, group_size):
    calls = []
    fisher = importance_of(torch.ones(24), calls)
    knobs = {"epsilon": 0.5, "epsilon_mode": "relative", "num_retain": 7, "fisher_seed": 3}
    knobs |= {"fisher_micro_batch": 3}
    list(fila([layer()], fisher, estimator=estimator, fisher_pass="sweep", **knobs))
    measured = {"group_size": group_size, "epsilon": 0.5, "relative": True, "num_retain": 7}
    assert calls == [measured | {"seed": 3, "fisher_pass": "sweep"}]


@pytest.mark.parametrize("init", [fila, fila_official])
def test_a_layer_that_the_forget_set_does_not_move_is_said(init):
    """Its adapter started at nothing, and training ended later in a remark on the loss."""
    with pytest.raises(UserError, match=r"moves nothing of .*forget Fisher is 0.*init=vanilla"):
        list(init([layer()], importance_of(torch.zeros(24), [])))


@pytest.mark.parametrize("init", [fila, fila_official])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_importance_that_is_not_finite_is_said(init, value):
    """As of a dead unit's weights beside an epsilon of 1e-50; the decomposition ended in a traceback."""
    d = torch.rand(24)
    d[3] = value
    with pytest.raises(UserError, match=r"importance of .* is not finite.*raise init\.epsilon"):
        list(init([layer()], importance_of(d)))


def test_vanilla_is_peft_default_and_seeded():
    first, again = (next(vanilla([layer(seed=3)])) for _ in range(2))
    assert torch.equal(first.a, again.a)
    assert not torch.equal(first.a, next(vanilla([layer(seed=4)])).a)
    assert first.b.count_nonzero() == 0
    bound = 40**-0.5  # Kaiming uniform with a = sqrt 5
    assert bound * 0.9 < first.a.abs().max() <= bound
    assert "fisher" not in inspect.signature(vanilla).parameters


@pytest.mark.parametrize(
    ("forget", "num_retain", "refused"),
    [(5, None, False), (4, None, True), (5, 4, True), (5, 5, False)],
)
def test_a_variance_needs_two_groups(forget, num_retain, refused):
    records = SimpleNamespace(forget=[None] * forget)
    assert bool(vila.problems(records=records, num_retain=num_retain)) == refused


@pytest.mark.parametrize(
    ("name", "retain", "refused"),
    [("fila_official", 4, True), ("fila_official", 5, False), ("fila", 4, False)],
)
def test_the_released_procedure_alone_measures_on_as_many_retain_as_forget_examples(
    name, retain, refused
):
    records = SimpleNamespace(forget=[None] * 5, retain=[None] * retain)
    assert bool(problems(name=name, records=records)) == refused
