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
