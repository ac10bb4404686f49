"""Means, success rates, matched forgetting and the answer, by hand."""

import math
from statistics import fmean

import pytest

from loku_exp.report import answer, formats, means, tables
from loku_exp.report.collect import collect
from loku_exp.report.ends import front_of
from loku_exp.report.estimates import at_level
from loku_exp.report.groups import group_runs
from loku_exp.report.matched import matched
from loku_exp.report.tables import Table
from tests.report.factory import edit, tdec, tofu


def only_group(root):
    (group,) = group_runs(collect(root).runs)
    return group


def column(table, name, row):
    (cells,) = [cells for cells in table.rows if cells[0] == row]
    return cells[table.columns.index(name)]


def plain(table, arm, metric):
    (row,) = [r for r in table.data if r["arm"] == arm and r["metric"] == metric]
    return row


def test_means_of_p_values_are_means_of_logarithms(tmp_path):
    for base, quality in ((0, 1e-2), (1, 1e-6)):
        tofu(tmp_path, base=base, quality=quality)
    table = means.means(only_group(tmp_path))[0]
    row = plain(table, "IHL + FILA", "log10_forget_quality")
    assert row["mean"] == pytest.approx(-4)
    assert row["n"] == 2
    assert row["high"] - row["mean"] == pytest.approx(12.706204736 * math.sqrt(8) / math.sqrt(2))


def test_forget_quality_never_stands_alone(tmp_path):
    tofu(tmp_path)
    table = means.means(only_group(tmp_path))[0]
    beside = {"KS distance", "shift", "model utility", "forget probability", "retain probability"}
    assert beside < set(table.columns)
    assert "(reference)" in {row[0] for row in table.rows}


def test_arrows_point_to_the_reference(tmp_path):
    tofu(tmp_path, metrics={"forget_prob": 0.05, "retain_prob": 0.80, "model_utility": 0.531})
    table = means.means(only_group(tmp_path))[0]
    assert column(table, "forget probability", "IHL + FILA") == "0.050 ↑"  # over-forgotten
    assert column(table, "retain probability", "IHL + FILA") == "0.800 ↑"
    assert column(table, "model utility", "IHL + FILA") == "0.531 ="
    assert "↑" not in column(table, "KS distance", "IHL + FILA")


def test_three_ways_to_average(tmp_path):
    """Method A succeeds on sets 0 and 1, B on set 1 alone: three different comparisons."""
    outcomes = {("ihl", 0): True, ("ihl", 1): True, ("gd", 0): False, ("gd", 1): True}
    for (loss, number), success in outcomes.items():
        tdec(tmp_path, loss=loss, forget_set=number, success=success)
    group = only_group(tmp_path)
    reasoning = {
        (run.record.run.choices["loss"], run.record.protocol["forget_split"]): run.record.models[
            "unlearned"
        ].metrics["reasoning"]
        for run in group.runs
    }
    whole, common, own = means.means(group)
    assert [table.name for table in (whole, common, own)] == list(means.MEANS)
    a, b = "IHL + FILA", "GD + FILA"
    both = [reasoning["ihl", "32_0"], reasoning["ihl", "32_1"]]
    assert plain(whole, a, "reasoning")["mean"] == pytest.approx(fmean(both))
    assert plain(common, a, "reasoning")["mean"] == pytest.approx(reasoning["ihl", "32_1"])
    assert plain(common, b, "reasoning")["n"] == 1
    assert plain(own, a, "reasoning")["mean"] == pytest.approx(fmean(both))
    assert plain(own, b, "reasoning")["mean"] == pytest.approx(reasoning["gd", "32_1"])
    assert any("1 of 2 units, 2 methods" in note for note in common.notes)
    assert any("other runs" in note for note in own.notes)
    rates = tables.success(group)
    assert column(rates, "succeeded", b) == "1 of 2"
    assert column(rates, "95 % (Wilson)", b) == "0.09 to 0.91"


def test_common_successes_are_sought_at_equal_rank(tmp_path):
    for rank, success in ((4, False), (32, True)):
        for loss in ("gd", "ihl"):
            tdec(tmp_path, loss=loss, rank=rank, success=success)
    common = means.means(only_group(tmp_path))[1]
    rows = [row[0] for row in common.rows if not row[0].startswith("(")]
    assert rows == ["GD + FILA, rank 32", "IHL + FILA, rank 32"]
    assert any(note.startswith("rank 4, all: 0 of 1") for note in common.notes)


def test_without_a_stop_rule_nothing_succeeds_or_fails(tmp_path):
    edit(tdec(tmp_path), lambda record: record.update(training={}))
    group = only_group(tmp_path)
    assert tables.success(group) is None
    assert [table.name for table in means.means(group)] == ["means_all_runs"]


def test_a_collapsed_model_has_not_succeeded_and_is_on_no_front(tmp_path):
    tofu(tmp_path, loss="ga", quality=0.9, metrics={"retain_prob": 0.1, "forget_ks": 0.0})
    tofu(tmp_path, loss="ihl")
    group = only_group(tmp_path)
    assert column(tables.success(group), "succeeded", "GA + FILA") == "0 of 1"
    assert [arm.method for arm in front_of(group)] == ["IHL + FILA"]
    summary = answer.summary(group)
    assert summary.rows[-1][0] == "GA + FILA"
    assert "COLLAPSED 1 of 1" in summary.rows[-1]
    assert "1 of 2 runs collapsed" in answer.answer(group)


def test_matched_forgetting_by_hand(tmp_path):
    def curve(points):
        def change(record):
            record["curve"] = [
                {
                    "model": "m",
                    "epoch": i,
                    "step": i,
                    "metrics": {"forget_prob": f, "retain_prob": u},
                }
                for i, (f, u) in enumerate(points)
            ]
            record["models"]["target"]["metrics"]["forget_prob"] = points[0][0]

        return change

    slow, fast = [(0.95, 1.0), (0.55, 0.9), (0.25, 0.5)], [(0.95, 1.0), (0.15, 0.6), (0.05, 0.2)]
    edit(tofu(tmp_path, loss="gd"), curve(slow))
    edit(tofu(tmp_path, loss="ihl"), curve(fast))
    table = matched(only_group(tmp_path))

    def cell(level, arm):
        (row,) = [r for r in table.data if r["level"] == level and r["arm"] == arm
                  and r["metric"] == "retain_prob"]  # fmt: skip
        return row

    # The reference has 0.15; half way from 0.95 is 0.55; all reach 0.25.
    assert cell("half way to the reference", "GD + FILA")["mean"] == pytest.approx(0.9)
    assert cell("half way to the reference", "IHL + FILA")["mean"] == pytest.approx(0.8)
    assert cell("the reference", "IHL + FILA")["mean"] == pytest.approx(0.6)
    assert cell("0.250, which all runs reach", "IHL + FILA")["mean"] == pytest.approx(
        at_level(fast, 0.25)
    )
    assert [row for row in table.rows if row[0] == "the reference" and row[1] == "GD + FILA"] == [
        ["the reference", "GD + FILA", "0 of 1", ""]
    ]


def test_no_curve_no_matched_forgetting(tmp_path):
    tofu(tmp_path, points=1)
    assert "evaluation.curve=reduced" in matched(only_group(tmp_path))


def test_the_answer_names_the_nearest_and_who_keeps_the_most(tmp_path):
    for base in (0, 1, 2):
        tofu(tmp_path, loss="ihl", base=base, metrics={"forget_ks": 0.1, "model_utility": 0.39})
        tofu(tmp_path, loss="gd", base=base, metrics={"forget_ks": 0.3, "model_utility": 0.52})
    text = answer.answer(only_group(tmp_path))
    assert text.startswith("**IHL + FILA** ends at KS distance 0.100")
    assert "keeping 75 % of the target's model utility" in text
    assert "**GD + FILA** keeps the most, 100 %" in text
    assert "paired over 3 units; the 95 % interval excludes 0" in text


def test_an_answer_of_one_unit_claims_nothing(tmp_path):
    tofu(tmp_path, loss="ihl")
    tofu(tmp_path, loss="gd")
    assert "n = 1): the order is not established" in answer.answer(only_group(tmp_path))


def test_success_orders_extraction_then_what_is_kept(tmp_path):
    for number in (0, 1):
        tdec(tmp_path, loss="ga", forget_set=number, success=number == 0)
        tdec(tmp_path, loss="gd", forget_set=number, success=True)
        tdec(tmp_path, loss="ihl", init="vanilla", forget_set=number, success=True)
    group = only_group(tmp_path)
    order = [arm.method for arm in answer.ranked(group, group.by_arm())]
    assert order[-1] == "GA + FILA"
    shares = [row[3] for row in answer.summary(group).rows[:2]]
    assert shares == sorted(shares, reverse=True)


def test_from_scratch_is_judged_by_the_retain_third(tmp_path):
    edit(
        tofu(tmp_path),
        lambda r: r["run"].update(label="small model trained FROM SCRATCH"),
    )
    assert only_group(tmp_path).utility == "model_utility_retain"


def test_formats_escape_what_they_must():
    table = Table("t", "50 % & more", ["a_b", "c"], [["x|y", "$1 ↑"]], ["note #1"], [{"a": 1}])
    text = formats.latex("head_line", table)
    assert r"50 \% \& more: head\_line. note \#1" in text
    assert r"a\_b & c \\" in text
    assert r"x|y & \$1 $\uparrow$ \\" in text
    assert r"| x\|y | $1 ↑ |" in formats.markdown("h", table)
    assert formats.escape_latex(r"a\b{c}") == r"a\textbackslash{}b\{c\}"
