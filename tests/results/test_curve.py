"""The curve of a run is drawn from the catalogue of its own record."""

import pytest
from matplotlib import pyplot as plt

from loku_exp.evaluation.catalogue import Metric
from loku_exp.evaluation.tdec.judge import catalogue
from loku_exp.evaluation.tofu.judge import CATALOGUE
from loku_exp.results.curve import draw_curve
from tests.results.records import record_of


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The labels of each panel."""

    def draw(record):
        figures = []
        monkeypatch.setattr(plt, "close", figures.append)
        draw_curve(record, tmp_path / "curve.png")
        monkeypatch.undo()
        if not figures:
            assert not (tmp_path / "curve.png").exists()
            return []
        assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
        (figure,) = figures
        labels = [axis.get_legend_handles_labels()[1] for axis in figure.axes]
        plt.close(figure)
        return labels

    return draw


def test_tofu(drawn):
    what_is_kept, test = drawn(record_of(list(CATALOGUE)))
    assert what_is_kept == [
        label
        for name in (
            "forget set, probability", "retain set, probability", "model utility",
            "model utility, its retain third",
        )
        for label in (name, f"{name}: reference")
    ]  # fmt: skip
    assert test == ["forget quality p", "p = .05"]


def test_tdec_has_thresholds(drawn):
    record = record_of(catalogue([10], 200, 50))
    goals = {"forget_ma": 0.3, "forget_el10": 0.05}
    judgement = record.judgement.model_copy(update={"goals": goals})
    first, second = drawn(record.model_copy(update={"judgement": judgement}))
    assert first[:3] == ["forget set, MA", "forget set, MA: reference", "threshold"]
    assert second == ["forget set, EL_10", "forget set, EL_10: reference", "threshold"]


def test_a_suite_of_ones_own(drawn):
    own = [Metric(name="forget_named", label="names", part="knowledge")]
    assert drawn(record_of(own)) == [["names", "names: reference"]]
    counted = [own[0].model_copy(update={"form": "count"})]
    assert drawn(record_of(counted)) == [["names", "names: reference"]]


def test_where_nothing_was_measured_twice_nothing_is_drawn(drawn):
    record = record_of(list(CATALOGUE))
    assert drawn(record.model_copy(update={"curve": record.curve[:1]})) == []
    assert drawn(record_of([Metric(name="x", label="x")])) == []


def test_a_label_is_no_formula(drawn):
    """Between two dollars matplotlib sees TeX; what is none ended the run before it was finished."""
    priced = [m.model_copy(update={"label": f"{m.label}, $x_{{ and $"}) for m in CATALOGUE]
    record = record_of(priced)
    run = record.run.model_copy(update={"label": r"$\frac{ and $"})
    (known, *_), _ = drawn(record.model_copy(update={"run": run}))
    assert known == r"forget set, probability, \$x_{ and \$"
