"""FLOPs of the low-rank step, against arithmetic by hand."""

import importlib

import pytest
import torch
from omegaconf import OmegaConf

from loku_exp.config.groups import conf_dir
from loku_exp.inits import activations, spectral
from loku_exp.inits.cost import qr_flops, svd_flops
from loku_exp.inits.fila import OVERSAMPLING, POWER_ITERATIONS, fila, fila_official, flops
from loku_exp.inits.interface import Importance, Layer


def layer(rank, shape=(5, 7)):
    return Layer("layer", torch.zeros(shape), rank, 1.0, seed=0)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_flops_of_a_randomised_decomposition(shape):
    """q = 3, k = 2, whichever side is longer."""
    products = 2 * 7 * 5 * 3 * 6 + 2 * 7 * 9
    long, short = 4 * 7 * 9 - 36, 4 * 5 * 9 - 36  # QR of (7, 3) and (5, 3)
    small = 6 * 5 * 9 + 20 * 27
    assert products + 3 * long + 2 * short + small == 3132
    assert svd_flops([layer(2, shape)], oversampling=1, power_iterations=2) == 3132


def test_no_more_columns_are_drawn_than_the_shorter_side_has():
    """q = 5: 2450 + 3 * 533 1/3 + 2 * 333 1/3 + 3250."""
    assert svd_flops([layer(4)], oversampling=4, power_iterations=2) == 7967


def test_flops_of_an_exact_decomposition():
    exact = svd_flops([layer(2), layer(3)], oversampling=1, power_iterations=2, exact=True)
    assert exact == 2 * (6 * 7 * 25 + 20 * 125)


@pytest.mark.parametrize("init", [fila, fila_official])
def test_flops_are_those_of_the_decomposition_that_is_run(init, monkeypatch):
    """The columns drawn and the iterations are read off the call itself."""
    run, decompose = [], torch.svd_lowrank

    def watched(matrix, q, niter):
        run.append({"oversampling": q - 2, "power_iterations": niter})
        return decompose(matrix, q=q, niter=niter)

    monkeypatch.setattr(torch, "svd_lowrank", watched)
    large = Layer("layer", torch.eye(50, 70), 2, 1.0, seed=0)
    list(init([large], lambda **_: Importance({"layer": torch.ones(50)}, epsilon_share=0.0)))
    (knobs,) = run
    assert flops(init.__name__, [large], {}) == svd_flops([large], **knobs)


@pytest.mark.parametrize(("shape", "of_q"), [((7, 5), 2 * 25 * 7 - 250 / 3), ((5, 7), 500 / 3)])
def test_flops_of_a_qr_decomposition(shape, of_q):
    """R: 2 * 25 * (7 - 5 / 3) = 266 2/3; Q of the long side as much, of the short one a square's."""
    assert qr_flops([layer(2, shape)]) == round(800 / 3 + of_q)
    assert spectral.flops("olora", [layer(2, shape)], {}) == qr_flops([layer(2, shape)])


def test_flops_of_inits_by_the_weights_and_by_second_moments_by_hand():
    """A weight of 5 rows and 7 columns, rank 2."""
    (one,) = layers = [layer(2)]
    assert spectral.flops("pissa", layers, {}) == 6 * 7 * 25 + 20 * 125
    assert activations.flops("eva", layers, {}) == 9 * 343
    assert activations.flops("rila", layers, {}) == 9 * 125 + 2 * 5 * 7 * 2
    known = {"oversampling": OVERSAMPLING, "power_iterations": POWER_ITERATIONS}
    solved = round(2 * 343 / 3) + 2 * 49 * 2
    assert activations.flops("corda", layers, {}) == 2 * 5 * 49 + solved + svd_flops([one], **known)


def test_every_init_that_decomposes_says_what_that_costs():
    """Those that did not stood in tables as free."""
    free = {"vanilla", "none"}
    for yaml in sorted((conf_dir() / "init").glob("*.yaml")):
        target = OmegaConf.load(yaml).get("_target_")
        if yaml.stem in free or target is None:
            continue
        module, _, name = target.rpartition(".")
        assert importlib.import_module(module).flops(name, [layer(2)], {}) > 0, yaml.stem
