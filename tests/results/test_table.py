"""How tables show numbers, and which way to the reference."""

import pytest

from loku_exp.results.table import _arrow, number


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("forget_ma", 0.5, "0.500"),
        ("forget_ma", None, ""),
        ("forget_quality", 1.234e-7, "1.2e-07"),
        ("forget_shift", 0.083, "+0.08"),
        ("pile_ppl", 31.456, "31.46"),
        ("pile_ppl", 15099.4, "15099"),
    ],
)
def test_a_metric_has_the_digits_that_mean_something(name, value, shown):
    assert number(name, value) == shown


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "shown"),
    [
        ("forget_ma", 0.079, 0.115, "↑ 0.04"),
        ("forget_ma", 0.5, 0.104, "↓ 0.40"),
        ("forget_ma", 0.079, 0.081, "="),
        ("pile_ppl", 15099.4, 6490.0, "↓ 8609"),
        ("pile_ppl", None, 6490.0, ""),
    ],
)
def test_arrows_point_to_the_reference(name, ours, theirs, shown):
    values = {"unlearned": {name: ours}, "reference": {name: theirs}}
    assert _arrow(values, name) == shown
