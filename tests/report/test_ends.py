"""Plots of where runs ended: each mark means one thing, and the legend shows it."""

import pytest

from loku_exp.report import ends
from loku_exp.report.collect import collect
from loku_exp.report.drawing import Looks
from loku_exp.report.findings import findings
from loku_exp.report.groups import group_runs
from tests.report.factory import edit, tofu

FILLS = {"full": "all runs succeeded", "left": "some runs succeeded", "none": "no run succeeded"}
BROKEN = {"retain_prob": 0.1}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw a plot of the runs there are; returns its figure and caption."""

    def drawn(plot):
        (group,) = group_runs(collect(tmp_path).runs)
        looks = Looks(tuple({arm.method for arm in group.by_arm()}))
        kept = []
        monkeypatch.setattr(ends, "finished", lambda figure, *rest: kept.append((figure, rest[3])))
        plot(findings(group), looks, tmp_path, "plot")
        return kept[0]

    return drawn


def legend_of(figure):
    (legend,) = figure.legends
    return {
        text.get_text(): line
        for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def means(axis, size):
    """The large markers, by where they are."""
    lines = [line for line in axis.lines if line.get_markersize() == size]
    return {tuple(line.get_xydata()[0]): line for line in lines if line.get_marker() != "*"}


def many(root):
    """Two ranks of two methods that differ in success, and one that collapsed."""
    for base in (0, 1):
        tofu(root, loss="ihl", rank=4, base=base, quality=0.9)
        tofu(root, loss="ihl", rank=8, base=base, quality=0.9 if base else 1e-9)
        tofu(root, loss="gd", rank=4, base=base, quality=1e-9)
        tofu(root, loss="gd", rank=8, base=base, quality=0.9)
    tofu(root, loss="ga", rank=8, quality=0.9, metrics=BROKEN)


def test_on_the_front_filling_is_success_and_the_legend_shows_each_mark(tmp_path, drawn):
    many(tmp_path)
    figure, _ = drawn(ends.front)
    (axis,) = figure.axes
    markers = means(axis, 8)
    assert len(markers) == 5
    fills = [line.get_fillstyle() for line in markers.values()]
    assert sorted(fills) == ["full", "full", "left", "none", "none"]
    shown = legend_of(figure)
    for fill, words in FILLS.items():
        assert shown[words].get_fillstyle() == fill
    ringed = [line for line in markers.values() if line.get_markeredgecolor() == "black"]
    assert ringed
    assert shown["on the front"].get_markeredgecolor() == "black"
    assert shown["on the front"].get_fillstyle() == "full"
    (cross,) = means(axis, 5)
    assert markers[cross].get_fillstyle() == "none"
    assert markers[cross].get_markeredgecolor() != "black"  # it collapsed: on no front
    assert shown["a run collapsed"].get_marker() == "x"
    assert shown["reference"].get_marker() == "*"
    assert shown["IHL + FILA"].get_fillstyle() == "full"


def test_every_mark_of_the_front_says_its_rank(tmp_path, drawn):
    many(tmp_path)
    figure, _ = drawn(ends.front)
    (axis,) = figure.axes
    beside = {text.xy: text.get_text() for text in axis.texts if text.get_text() != "target"}
    assert set(beside) == set(means(axis, 8))
    assert sorted(beside.values()) == ["4", "4", "8", "8", "8"]


def test_no_text_of_the_front_covers_another_and_the_caption_counts_those_left_out(tmp_path, drawn):
    for loss in ("ga", "gd", "ihl"):
        for rank in (4, 8, 16, 32, 64):
            for init in ("fila", "vanilla"):
                tofu(tmp_path, loss=loss, init=init, rank=rank)
    figure, caption = drawn(ends.front)
    figure.canvas.draw()
    written = [text for text in figure.axes[0].texts if text.get_text().isdigit()]
    boxes = [text.get_window_extent() for text in written]
    assert not [k for k, box in enumerate(boxes) if box.count_overlaps(boxes[:k])]
    assert 8 < len(written) < 30
    assert f"Marks without room for their rank: {30 - len(written)};" in caption


def test_marks_that_do_not_occur_are_in_no_legend(tmp_path, drawn):
    tofu(tmp_path, loss="ihl", quality=0.9)
    tofu(tmp_path, loss="gd", quality=0.9)
    figure, _ = drawn(ends.front)
    shown = legend_of(figure)
    assert set(shown) == {
        "IHL + FILA", "GD + FILA", "reference", "on the front", "all runs succeeded",
    }  # fmt: skip
    assert {text.get_text() for text in figure.axes[0].texts} == {"target"}


def test_where_success_cannot_be_said_no_mark_says_it(tmp_path, drawn):
    def unjudged(record):
        for judged in (record["judgement"], record["models"]["unlearned"]["judgement"]):
            judged["success"] = None

    for rank in (4, 8):
        edit(tofu(tmp_path, rank=rank, quality=0.9), unjudged)
    for plot, size in ((ends.front, 8), (ends.over_ranks, 6)):
        figure, _ = drawn(plot)
        markers = [line for axis in figure.axes for line in means(axis, size).values()]
        assert markers
        assert all(line.get_fillstyle() == "full" for line in markers)
        assert not set(FILLS.values()) & set(legend_of(figure))


def test_over_ranks_filling_means_the_same(tmp_path, drawn):
    many(tmp_path)
    tofu(
        tmp_path, loss="ga", rank=8, base=1, quality=0.9, metrics=BROKEN
    )  # on both bases, as the others
    figure, _ = drawn(ends.over_ranks)
    fills = {line.get_fillstyle() for axis in figure.axes for line in means(axis, 6).values()}
    assert fills == set(FILLS)
    shown = legend_of(figure)
    assert {words: shown[words].get_fillstyle() for words in FILLS.values()} == {
        words: fill for fill, words in FILLS.items()
    }


def test_the_table_is_named_only_where_it_holds_what_is_drawn(tmp_path, drawn):
    for rank in (4, 8):
        tofu(tmp_path, rank=rank, base=0)
    assert drawn(ends.over_ranks)[1].endswith(
        "Over all runs: the table of means holds the numbers."
    )
    tofu(tmp_path, rank=8, base=1)  # the table has this run, the drawing only what all ran on
    caption = drawn(ends.over_ranks)[1]
    assert "Over the units that all of these ran on (base seed 0" in caption
    assert "table" not in caption


def test_what_is_known_of_a_text_is_not_called_forgotten_at_0(tmp_path, drawn):
    def alone(record):
        del record["models"]["reference"]
        for model in record["models"].values():
            model["reference"] = None
        del record["models"]["unlearned"]["metrics"]["forget_ks"]

    edit(tofu(tmp_path), alone)
    figure, _ = drawn(ends.front)
    assert figure.axes[0].get_xlabel() == "forget set, probability"
