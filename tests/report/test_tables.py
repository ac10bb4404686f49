"""Means, success rates, matched forgetting and the answer, by hand."""

import math
import shutil
import subprocess
from statistics import fmean

import pandas as pd
import pytest

from loku_exp.report import formats, tables
from loku_exp.report.answer import answer, front_of, ordered, ranked
from loku_exp.report.collect import collect
from loku_exp.report.estimates import at_level
from loku_exp.report.findings import findings
from loku_exp.report.groups import group_runs
from loku_exp.report.matched import matched
from loku_exp.report.tables import Table
from tests.report.factory import edit, own_suite, tdec, tofu
from tests.report.test_groups import attacked

A, B = "IHL + FILA", "GD + FILA"


def only(root):
    (group,) = group_runs(collect(root).runs)
    return findings(group)


def cell(table, row, name):
    first = table.cells.columns[0]
    (value,) = table.cells.loc[table.cells[first] == row, name]
    return value


def plain(table, arm, metric):
    (row,) = table.data[(table.data.arm == arm) & (table.data.metric == metric)].to_dict("records")
    return row


def test_means_of_p_values_are_geometric(tmp_path):
    for base, quality in ((0, 1e-2), (1, 1e-6)):
        tofu(tmp_path, base=base, quality=quality)
    table = tables.means(only(tmp_path))[0]
    row = plain(table, A, "forget_quality")
    assert row["mean"] == pytest.approx(1e-4)
    assert row["n"] == 2
    half = 12.706204736 * math.sqrt(8) / math.sqrt(2)  # t of one degree of freedom, of -2 and -6
    assert -4 + half > 0
    assert row["high"] == 1  # as far as a p-value goes
    assert math.log10(row["low"]) == pytest.approx(-4 - half)
    assert cell(table, A, "forget quality p").startswith("1e-04 [")
    assert "Means of p-values are geometric." in table.notes


def test_forget_quality_never_stands_alone(tmp_path):
    tofu(tmp_path)
    table = tables.means(only(tmp_path))[0]
    beside = {
        "KS distance",
        "shift of log ratio",
        "model utility",
        "forget set, probability",
        "retain set, probability",
    }
    assert beside < set(table.cells.columns)
    assert "(reference)" in set(table.cells.method)


def test_arrows_point_to_the_reference(tmp_path):
    tofu(tmp_path, metrics={"forget_prob": 0.05, "retain_prob": 0.80, "model_utility": 0.531})
    table = tables.means(only(tmp_path))[0]
    assert cell(table, A, "forget set, probability") == "0.050 ↑"  # over-forgotten
    assert cell(table, A, "retain set, probability") == "0.800 ↑"
    assert cell(table, A, "model utility") == "0.531 ="
    assert "↑" not in cell(table, A, "KS distance")


def test_three_ways_to_average(tmp_path):
    """Method A succeeds on sets 0 and 1, B on set 1 alone: three different comparisons."""
    outcomes = {("ihl", 0): True, ("ihl", 1): True, ("gd", 0): False, ("gd", 1): True}
    for (loss, number), success in outcomes.items():
        tdec(tmp_path, loss=loss, forget_set=number, success=success)
    found = only(tmp_path)
    reasoning = {
        (run.keys["loss"], run.keys["forget_split"]): run.record.models["unlearned"].metrics[
            "reasoning"
        ]
        for run in found.group.runs
    }
    whole, common, own = tables.means(found)
    assert [table.name for table in (whole, common, own)] == list(tables.MEANS)
    both = [reasoning["ihl", "32_0"], reasoning["ihl", "32_1"]]
    assert plain(whole, A, "reasoning")["mean"] == pytest.approx(fmean(both))
    assert plain(common, A, "reasoning")["mean"] == pytest.approx(reasoning["ihl", "32_1"])
    assert plain(common, B, "reasoning")["n"] == 1
    assert plain(own, A, "reasoning")["mean"] == pytest.approx(fmean(both))
    assert plain(own, B, "reasoning")["mean"] == pytest.approx(reasoning["gd", "32_1"])
    assert any(note.endswith(": all succeed on 1 of 2 units.") for note in common.notes)
    assert any("other runs" in note for note in own.notes)
    assert cell(ordered(found), B, "success") == "1 of 2 [0.09, 0.91]"


def test_common_successes_are_sought_at_equal_rank(tmp_path):
    for rank, success in ((4, False), (32, True)):
        for loss in ("gd", "ihl"):
            tdec(tmp_path, loss=loss, rank=rank, success=success)
    common = tables.means(only(tmp_path))[1]
    rows = [name for name in common.cells.method if not name.startswith("(")]
    assert rows == ["GD + FILA, rank 32", "IHL + FILA, rank 32"]
    assert any(
        note.endswith("at rank 4, layers all: all succeed on 0 of 1 units.")
        for note in common.notes
    )


def no_stop_rule(record):
    record["training"] = {}
    for judged in (record["judgement"], record["models"]["unlearned"]["judgement"]):
        judged.update(success=None, goals={})


def test_without_a_stop_rule_nothing_succeeds_or_fails(tmp_path):
    edit(tdec(tmp_path), no_stop_rule)
    found = only(tmp_path)
    assert "success" not in ordered(found).cells
    assert [table.name for table in tables.means(found)] == ["means_all_runs"]


def test_one_run_without_a_stop_rule_is_averaged_with_the_others(tmp_path):
    tdec(tmp_path, loss="gd")
    edit(tdec(tmp_path), no_stop_rule)
    found = only(tmp_path)
    assert found.gap.name == "forget_ma"  # what both have
    assert A in answer(found)
    assert isinstance(matched(found), Table)
    assert list(tables.all_runs(found).cells.outcome) == ["succeeded", "not judged"]


def test_how_far_above_its_goals_a_run_is_by_hand(tmp_path):
    edit(tdec(tmp_path, success=False), lambda record: record["models"]["unlearned"]["metrics"].update(
        forget_ma=0.37, forget_el10=0.04))  # fmt: skip
    found = only(tmp_path)
    assert found.gap.name == "above_goals"
    assert found.mean(found.gap, None).value == pytest.approx(0.37 - 0.30)


def test_a_collapsed_model_has_not_succeeded_and_is_on_no_front(tmp_path):
    tofu(tmp_path, loss="ga", quality=0.9, metrics={"retain_prob": 0.1, "forget_ks": 0.0})
    tofu(tmp_path, loss="ihl")
    found = only(tmp_path)
    assert [arm.method for arm in front_of(found)] == [A]
    table = ordered(found)
    assert table.cells.method.iloc[-1] == "GA + FILA"
    assert table.cells.success.iloc[-1].startswith("0 of 1")
    assert table.cells.collapsed.iloc[-1] == "1 of 1"
    assert "1 of 2 runs collapsed" in answer(found)


def test_a_method_with_one_collapse_neither_leads_nor_is_on_the_front(tmp_path):
    for base in (0, 1):
        broken = {"retain_prob": 0.1, "forget_ks": 0.0} if base else {"forget_ks": 0.0}
        tofu(tmp_path, loss="ga", base=base, quality=0.9, metrics=broken)
        tofu(tmp_path, loss="ihl", base=base, quality=1e-9)
    found = only(tmp_path)
    table = ordered(found)
    assert list(table.cells.method) == [A, "GA + FILA"]
    assert list(table.cells.collapsed) == ["", "1 of 2"]
    assert table.cells.success.iloc[1].startswith("1 of 2")  # it would lead otherwise
    assert [arm.method for arm in front_of(found)] == [A]
    assert answer(found).startswith(f"**{A}** ")
    assert "No other method here is sound" in answer(found)


def test_runs_and_arms_stand_in_the_order_of_their_ranks(tmp_path):
    for rank in (16, 4, 8):
        for loss in ("ihl", "gd"):
            tofu(tmp_path, rank=rank, loss=loss)
    found = only(tmp_path)
    ranks = [4, 8, 16]
    assert [arm.rank for arm in found.group.by_arm()] == [4, 4, 8, 8, 16, 16]
    assert list(tables.all_runs(found).cells.method) == [
        f"{method}, rank {rank}" for method in (B, A) for rank in ranks
    ]


def test_a_word_in_a_sentence_is_no_fact(tmp_path):
    def praised(record):
        for judged in (record["judgement"], record["models"]["unlearned"]["judgement"]):
            judged["sentence"] = "COLLAPSED it has not, FROM SCRATCH it is not"

    edit(tofu(tmp_path), praised)
    assert "collapsed" not in ordered(only(tmp_path)).cells


def curve(points):
    def change(record):
        record["curve"] = [
            {"model": "m", "epoch": i, "step": i, "metrics": {"forget_prob": f, "retain_prob": u}}
            for i, (f, u) in enumerate(points)
        ]

    return change


def test_matched_forgetting_by_hand(tmp_path):
    slow, fast = [(0.95, 1.0), (0.55, 0.9), (0.25, 0.5)], [(0.95, 1.0), (0.15, 0.6), (0.05, 0.2)]
    edit(tofu(tmp_path, loss="gd"), curve(slow))
    edit(tofu(tmp_path, loss="ihl"), curve(fast))
    table = matched(only(tmp_path))

    def mean(level, arm):
        data = table.data[(table.data.level == level) & (table.data.metric == "retain_prob")]
        return float(data.loc[data.arm == arm, "mean"].iloc[0])

    # The reference has 0.15; half way from 0.95 is 0.55; all reach 0.25.
    assert mean("half way to the goal", B) == pytest.approx(0.9)
    assert mean("half way to the goal", A) == pytest.approx(0.8)
    assert mean("the goal", A) == pytest.approx(0.6)
    assert mean("0.250, which all runs reach", A) == pytest.approx(at_level(fast, 0.25))
    rows = table.cells[(table.cells.level == "the goal") & (table.cells.method == B)]
    assert rows.to_dict("records") == [
        {"level": "the goal", "method": B, "reached": "0 of 1", "retain set, probability": ""}
    ]


def test_a_level_below_which_a_run_begins_is_not_called_reached_by_all(tmp_path):
    """The second begins at .2 and goes up; the first comes down to .25 alone."""
    edit(tofu(tmp_path, loss="gd"), curve([(0.95, 1.0), (0.55, 0.9), (0.25, 0.5)]))
    edit(tofu(tmp_path, loss="ihl"), curve([(0.2, 1.0), (0.15, 0.6), (0.3, 0.2)]))
    table = matched(only(tmp_path))
    assert set(table.cells.level[-2:]) == {"0.250, below which some begin"}


def test_no_curve_no_matched_forgetting(tmp_path):
    tofu(tmp_path, points=1)
    assert "evaluation.curve=reduced" in matched(only(tmp_path))


def test_the_answer_names_the_nearest_and_who_keeps_the_most(tmp_path):
    for base in (0, 1, 2):
        for loss, ks, utility in (("ihl", 0.1, 0.39), ("gd", 0.3 + 0.01 * base, 0.52)):
            found = {"forget_ks": ks, "model_utility": utility, "forget_quality": 0.01}
            tofu(tmp_path, loss=loss, base=base, metrics=found)
    text = answer(only(tmp_path))
    assert "**IHL + FILA** succeeds on 0 of 3 units and ends with KS distance 0.100 (" in text
    assert 'keeping 75 % of what the target has of "model utility"' in text
    assert "**GD + FILA** keeps the most, 100 %" in text
    said = "IHL + FILA has 0.21 less of KS distance than GD + FILA, paired over 3 units; the 95 %"
    assert f"{said} interval excludes 0." in text


def test_what_ran_on_easier_bases_is_no_better_for_it(tmp_path):
    """GD ran on the easy base alone; on it IHL is nearer, and only its harder base makes its mean worse."""
    for loss, base, ks in (
        ("ihl", 0, 0.1),
        ("ihl", 1, 0.4),
        ("ga", 0, 0.3),
        ("ga", 1, 0.5),
        ("gd", 0, 0.2),
    ):
        found = {"forget_ks": ks, "forget_quality": 0.01, "retain_prob": 0.9}
        tofu(tmp_path, loss=loss, base=base, metrics=found)
    found = only(tmp_path)
    table = ordered(found)
    assert list(table.cells.method) == ["IHL + FILA", "GA + FILA", "GD + FILA"]
    assert dict(zip(table.cells.method, table.cells["KS distance"], strict=True)) == {
        "IHL + FILA": "0.250", "GA + FILA": "0.400", "GD + FILA": "0.200"
    }  # fmt: skip
    assert list(table.cells["on the front"]) == ["yes", "", ""]
    assert any(
        note.startswith("Compared over the 2 units that all of the first 2") for note in table.notes
    )
    assert "not compared here: 1." in answer(found)


def test_an_order_that_success_alone_makes_has_no_interval(tmp_path):
    for loss in ("ihl", "gd"):
        for base in (0, 1):
            quality = 0.5 if loss == "ihl" else 0.01
            tofu(tmp_path, loss=loss, base=base, metrics={"forget_quality": quality})
    text = answer(only(tmp_path))
    assert (
        "IHL + FILA has 1 more of success than GD + FILA, paired over 2 units; alike in each"
        in text
    )
    assert "excludes 0" not in text


def test_a_model_that_is_one_in_all_runs_is_one_unit(tmp_path):
    def with_untuned(record):
        record["models"]["untuned"] = record["models"]["target"] | {
            "role": "untuned", "weights": "pretrained", "path": "models/x"
        }  # fmt: skip

    for base in (0, 1, 2):
        edit(tofu(tmp_path, base=base), with_untuned)
    found = only(tmp_path)
    assert found.means["", "untuned", "retain_prob"].n == 1
    assert found.means["", "target", "retain_prob"].n == 3


def test_what_no_reference_enters_is_no_unit_more_for_each_reference(tmp_path):
    for seed in (0, 1, 2):
        folder = tofu(tmp_path / str(seed), seeds={"target": 0, "reference": seed})
        edit(folder, lambda r: r["run"].update(id=f"run{r['protocol']['seeds']['reference']}"))
    found = only(tmp_path)
    assert found.means[A, "unlearned", "retain_prob"].n == 1
    assert found.means[A, "unlearned", "forget_ks"].n == 3
    assert found.means["", "reference", "retain_prob"].n == 3


def test_a_mean_over_fewer_runs_than_its_row_says_so(tmp_path):
    tofu(tmp_path, base=0)
    folder = tofu(tmp_path, base=1)
    edit(folder, lambda r: r["models"]["unlearned"]["metrics"].pop("forget_rouge"))
    notes = tables.means(only(tmp_path))[0].notes
    said = "Over the runs that have it alone: forget set, ROUGE-L recall of IHL + FILA (1 of 2)."
    assert said in notes


def test_an_interval_ends_where_the_metric_does(tmp_path):
    for base, known in ((0, 0.1), (1, 0.9)):
        tofu(tmp_path, base=base, metrics={"forget_prob": known})
    row = plain(tables.means(only(tmp_path))[0], A, "forget_prob")
    assert (row["mean"], row["low"], row["high"]) == (pytest.approx(0.5), 0, 1)


def test_target_and_reference_are_means_over_runs_too(tmp_path):
    for base in (0, 1):
        tofu(tmp_path, base=base)
    table = tables.means(only(tmp_path))[0]
    assert [plain(table, name, "forget_prob")["runs"] for name in ("target", A)] == [2, 2]


def test_what_an_excess_over_goals_is_stands_under_it(tmp_path):
    tdec(tmp_path / "tdec")
    tofu(tmp_path / "tofu")
    said = [
        "excess over the goals" in " ".join(ordered(only(tmp_path / k)).notes)
        for k in ("tdec", "tofu")
    ]
    assert said == [True, False]


def test_beside_where_a_method_ends_stands_where_it_began(tmp_path):
    tofu(tmp_path)
    assert "(target 0.350, forget quality p " in answer(only(tmp_path))


def test_what_the_suite_says_of_its_numbers_stands_under_them(tmp_path):
    def cautioned(record):
        record["judgement"]["notes"] = ["few rows"]

    for base in (0, 1):
        edit(tofu(tmp_path, base=base), cautioned)
    assert "Few rows." in only(tmp_path).group.notes


@pytest.mark.parametrize(("weights", "said"), [("finetuned_here", False), ("from_scratch", True)])
def test_a_label_alone_makes_no_toy(tmp_path, weights, said):
    def labelled(record):
        record["run"]["label"] = "22 of 200 authors"
        record["models"]["target"]["weights"] = weights

    edit(tofu(tmp_path), labelled)
    (note,) = (note for note in only(tmp_path).group.notes if note.startswith("22 of 200"))
    assert note.endswith("says nothing about these methods on a pretrained model.") is said


def test_a_method_that_is_alone_at_its_rank_has_no_common_successes(tmp_path):
    for rank, losses in ((4, ("ihl",)), (8, ("ihl", "gd"))):
        for loss in losses:
            tofu(tmp_path, loss=loss, rank=rank, metrics={"forget_quality": 0.5})
    table = tables.means(only(tmp_path))[1]
    assert not any("rank 4" in method for method in table.cells.method)
    assert "2 methods at rank 8, layers all: all succeed on 1 of 1 units." in table.notes


def test_an_answer_of_one_unit_claims_nothing(tmp_path):
    tofu(tmp_path, loss="ihl")
    tofu(tmp_path, loss="gd")
    assert "n = 1): the order is not established" in answer(only(tmp_path))


def test_an_answer_over_unlike_units_claims_nothing(tmp_path):
    tofu(tmp_path, loss="ihl", base=0)
    tofu(tmp_path, loss="gd", base=1)
    text = answer(only(tmp_path))
    assert "No other method ran on its units: nothing is compared." in text
    assert text.endswith("Methods that ran on other units, and are not compared here: 1.")


def test_success_orders_then_nearness_then_what_is_kept(tmp_path):
    for number in (0, 1):
        tdec(tmp_path, loss="ga", forget_set=number, success=number == 0)
        tdec(tmp_path, loss="gd", forget_set=number)
        tdec(tmp_path, loss="ihl", init="vanilla", forget_set=number)
    found = only(tmp_path)
    assert [arm.method for arm in ranked(found)][-1] == "GA + FILA"
    shares = [float(share) for share in ordered(found).cells["reasoning (mean of nine) kept"][:2]]
    assert shares == sorted(shares, reverse=True)


def test_utility_is_what_the_suite_judges_by_where_all_runs_have_it(tmp_path):
    def judged_by(name):
        return lambda record: record["judgement"].update(utility=name)

    edit(tofu(tmp_path), judged_by("model_utility_retain"))
    assert only(tmp_path).utility.name == "model_utility_retain"
    folder = tofu(tmp_path, loss="gd")
    edit(folder, judged_by("model_utility_retain"))
    edit(folder, lambda r: r["models"]["unlearned"]["metrics"].pop("model_utility_retain"))
    assert only(tmp_path).utility.name == "retain_prob"  # the first that both have


def test_further_models_have_a_table_of_their_own(tmp_path):
    assert tables.further_models(only_of(tmp_path / "plain")) is None
    for base in (0, 1):
        for loss in ("gd", "ihl"):
            edit(tofu(tmp_path / "attacked", loss=loss, base=base), attacked)
    table = tables.further_models(only(tmp_path / "attacked"))
    assert list(zip(table.cells.model, table.cells.method, strict=True)) == [
        ("target+relearn", ""),
        ("unlearned+relearn", B),
        ("unlearned+relearn", A),
        ("reference+relearn", ""),
    ]
    means = table.data[
        (table.data.model == "target+relearn") & (table.data.metric == "forget_prob")
    ]
    assert means.to_dict("records")[0]["mean"] == pytest.approx(0.93)


def test_an_attack_in_other_settings_is_another_attack(tmp_path):
    """Means were taken over a rounding to groups of 64 and one to whole rows."""
    for base, group in enumerate((64, 64, None)):
        folder = edit(tofu(tmp_path, base=base), attacked)
        with (folder / "config.yaml").open("a") as file:
            written = "null" if group is None else group
            file.write(f"attacks: {{relearn: {{group: {written}, bits: 4}}}}\n")
    table = tables.further_models(only(tmp_path))
    n = table.data[table.data.metric == "forget_prob"].set_index("model").n
    of_target = {name: count for name, count in n.items() if name.startswith("target")}
    assert of_target == {"target+relearn (group 64)": 2, "target+relearn (group None)": 1}


def only_of(root):
    tofu(root)
    return only(root)


def test_a_run_alone_has_means_without_intervals(tmp_path):
    row = plain(tables.means(only_of(tmp_path))[0], A, "forget_prob")
    assert row["n"] == 1
    assert row["low"] is None or math.isnan(row["low"])


def test_a_metric_that_no_run_has_is_no_column_and_one_that_some_lack_a_hole(tmp_path):
    tofu(tmp_path, loss="ihl")
    edit(
        tofu(tmp_path, loss="gd"), lambda r: r["models"]["unlearned"]["metrics"].pop("forget_rouge")
    )
    table = tables.all_runs(only(tmp_path))
    assert "retain set, ROUGE-L recall" not in table.cells  # detail
    assert cell(table, B, "forget set, ROUGE-L recall") == ""
    assert cell(table, A, "forget set, ROUGE-L recall") != ""


def test_a_users_own_suite_is_ordered_by_what_it_knows(tmp_path):
    own_suite(tmp_path, hush=1.0, silence=5.0)
    found = only(tmp_path)
    assert found.gap.label == "spells known"
    said = "**hush** succeeds on 1 of 1 unit and ends with spells known 1 (target 9). hush and "
    said += "silence share"
    assert answer(found).startswith(said)
    table = ordered(found)
    assert list(table.cells.method) == ["hush", "silence"]
    assert list(table.cells["spells known"]) == ["1", "5"]
    assert cell(tables.means(found)[0], "(target)", "spells known") == "9"


def test_labels_that_are_alike_or_a_columns_own_are_told_apart(tmp_path):
    def relabelled(record):
        for metric in record["catalogue"]:
            if metric["name"] in ("forget_prob", "retain_prob"):
                metric["label"] = "probability"
            if metric["name"] == "forget_ks":
                metric["label"] = "success"

    edit(tofu(tmp_path), relabelled)
    table = tables.means(only(tmp_path))[0]
    wanted = {"probability (forget_prob)", "probability (retain_prob)", "success (forget_ks)"}
    assert wanted < set(table.cells.columns)


def test_runs_without_any_metric_are_listed(tmp_path):
    def emptied(record):
        for model in record["models"].values():
            model["metrics"] = {}
        record["curve"], record["training"] = [], {}

    edit(tdec(tmp_path), emptied)
    found = only(tmp_path)
    assert answer(found).startswith("These runs share no measure of forgetting")
    assert list(tables.all_runs(found).cells.outcome) == ["succeeded"]
    assert isinstance(matched(found), str)
    assert tables.further_models(found) is None
    assert [len(table.cells) for table in tables.means(found)] == [0, 0, 0]


# -- files -----------------------------------------------------------------------------------------


def small(**changes):
    cells = pd.DataFrame({"a_b": ["x|y"], "c": ["$1 ↑"], "left out": ["z"]})
    content = {"paper": ["a_b", "c"], "notes": ["note #1"]} | changes
    return Table("t", "50 % & more", cells, pd.DataFrame({"a": [1]}), **content)


def test_formats_escape_what_they_must():
    text = formats.latex_of("head_line", small())
    assert r"50 \% \& more: head\_line. note \#1" in text
    assert r"a\_b & c \\" in text
    assert r"x|y & \$1 $\uparrow$ \\" in text
    assert "left out" not in text
    assert r"| x\|y   | $1 ↑ | z          |" in formats.markdown_of("h", small())
    assert formats.escape_latex(r"a\b{c}") == r"a\textbackslash{}b\{c\}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "-7.6 [-8.1, -.5] 1e-04 fine-tuned -x 0-1",
            r"$-$7.6 {[}$-$8.1, $-$.5{]} 1e-04 fine-tuned -x 0-1",
        ),
        ("• ≈ ●", r"$\bullet$ $\approx$ ?"),
        ("é 日本", "e ??"),
        ("率５０％ Ａ＆Ｂ ＿x", r"?50\% A\&B \_x"),
        ("0.5 ± 0.1", r"0.5 $\pm$ 0.1"),
    ],
)
def test_latex_is_ascii_alone(text, shown):
    assert formats.escape_latex(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.500 ↑ [0.400, 0.600]", r"0.500 $\pm$ 0.100 $\uparrow$"),
        ("1e-04 [1e-06, 1e-02]", "1e-04 {[}1e-06, 1e-02{]}"),  # not symmetric
        ("1 of 2 [0.09, 0.91]", "1 of 2 {[}0.09, 0.91{]}"),
    ],
)
def test_a_symmetric_interval_is_a_half_width_in_papers(text, shown):
    table = Table("t", "t", pd.DataFrame({"c": [text]}), pd.DataFrame())
    assert shown in formats.latex_of("h", table)


def test_numbers_stand_on_the_right_and_tables_have_labels_of_their_own(tmp_path):
    one, other = small(), small(paper=["c", "a_b", "left out"])
    formats.write_tables(tmp_path, [("h", one), ("g", other)])
    text = (tmp_path / "t.tex").read_text()
    assert [line for line in text.splitlines() if "{tabular}" in line and "begin" in line] == [
        r"\begin{tabular}{lr}", r"\begin{tabular}{lrr}",
    ]  # fmt: skip
    assert [part.split("}")[0] for part in text.split(r"\label{")[1:]] == ["tab:t", "tab:t-2"]


def test_a_table_for_a_paper_fits_a_column_of_text(tmp_path):
    for base in (0, 1, 2):
        for loss in ("gd", "ihl"):
            for rank in (4, 8):
                tofu(tmp_path, loss=loss, rank=rank, base=base)
    found = only(tmp_path)
    for table in [ordered(found), *tables.means(found), matched(found), tables.all_runs(found)]:
        text = formats.latex_of("h", table)
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert text.isascii()
        assert lines
        assert all(line.count(" & ") <= 6 for line in lines)


PAGE = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_tables_for_papers_compile_and_fit(tmp_path):
    for base in (0, 1):
        for loss in ("gd", "ihl"):
            edit(tofu(tmp_path / "tofu", loss=loss, base=base), attacked)
            tdec(tmp_path / "tdec", loss=loss, forget_set=base)
    shown = []
    for name in ("tofu", "tdec"):
        found = only(tmp_path / name)
        shown += [ordered(found), *tables.means(found), matched(found), tables.all_runs(found)]
        shown += [table for table in [tables.further_models(found)] if table]
    text = "".join(formats.latex_of("50 % of_it ≈ •", table) for table in shown)
    (tmp_path / "page.tex").write_text(PAGE % text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_a_method_alone_is_compared_with_none_and_no_reference_is_claimed(tmp_path):
    def alone(record):
        del record["models"]["reference"]
        for model in record["models"].values():
            model["reference"] = None

    edit(tofu(tmp_path), alone)
    found = only(tmp_path)
    assert "No other method is here: nothing is compared." in answer(found)
    assert "All runs are of one base model and one forget set: n is 1" in found.group.notes[0]
