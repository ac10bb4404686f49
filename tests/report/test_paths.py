"""Plots over the course of unlearning: what stands at one point was measured at one update."""

import pytest

from loku_exp.report import paths
from loku_exp.report.collect import collect
from loku_exp.report.drawing import Looks
from loku_exp.report.findings import findings
from loku_exp.report.groups import group_runs
from tests.report.factory import edit, tofu


def test_points_of_the_path_are_of_one_update_where_a_curve_has_more_of_one_metric(
    tmp_path, monkeypatch
):
    """With ``evaluation.curve=brief`` and a stop rule p is known at the first and the last two moments."""

    def brief(record):
        for point in record["curve"][1:-2]:
            known = ("forget_prob", "retain_prob")
            point["metrics"] = {name: point["metrics"][name] for name in known}
        last = record["curve"][-2]["metrics"]
        record["curve"][-2]["metrics"] = {k: v for k, v in last.items() if "utility" not in k}

    run = edit(tofu(tmp_path), brief)
    (group,) = group_runs(collect(run).runs)
    drawn = []
    monkeypatch.setattr(paths, "_plot", lambda _, figure, *rest: drawn.append(figure))
    paths.path(findings(group), Looks(("IHL + FILA",)), tmp_path, "path")
    line = drawn[0].axes[0].lines[0]
    curve = group.runs[0].record.curve
    expected = [curve[place].metrics["retain_prob"] for place in (0, -2, -1)]
    assert list(line.get_ydata()) == pytest.approx(expected)


@pytest.mark.parametrize("goal", [True, False])
def test_what_is_not_drawn_is_in_no_legend_and_no_caption(tmp_path, monkeypatch, goal):
    def alone(record):
        del record["models"]["reference"]
        for model in record["models"].values():
            model["reference"] = None
        for place in (
            record["models"]["unlearned"],
            *record["curve"],
        ):  # no test without a reference
            del place["metrics"]["forget_quality"]

    run = tofu(tmp_path)
    (group,) = group_runs(collect(run if goal else edit(run, alone)).runs)
    drawn = []
    monkeypatch.setattr(paths, "_plot", lambda _, figure, *rest: drawn.append((figure, rest[-1])))
    for plot in (paths.path, paths.curves, paths.compute):
        plot(findings(group), Looks(("IHL + FILA",)), tmp_path, "plot")
    for figure, caption in drawn:
        shown = {text.get_text() for text in figure.legends[0].get_texts()}
        assert bool(shown & {"to be met", "p = .05", "reference"}) is goal
        assert ("grey: " in caption.lower()) is goal
