"""The table of a run: what stands in its cells and columns, and how it looks at any width."""

import io
import re
from collections import Counter

import pytest
from rich.console import Console

from loku_exp.evaluation.catalogue import Metric
from loku_exp.evaluation.tdec.judge import catalogue
from loku_exp.evaluation.tofu.judge import CATALOGUE
from loku_exp.results import terminal
from loku_exp.results.table import column_groups, header_and_rows, notes, title
from loku_exp.results.terminal import LEAST_WIDTH, PIPED_WIDTH, console, show, tables
from tests.results.records import ROLES, record_of, value_of

WORDS = {"tofu": list(CATALOGUE), "tdec": catalogue([10], 200, 50)}
MA = Metric(name="forget_ma", label="forget set, MA", forget=True)
P = Metric(name="forget_quality", label="forget quality p", better="none", form="p")


def changed(record, model, **changes):
    return record.model_copy(
        update={"models": record.models | {model: record.models[model].model_copy(update=changes)}}
    )


def cells(ours, theirs, metric=MA, arrows="distance", **changes):
    record = record_of([metric])
    for name, value in (("unlearned", ours), ("reference", theirs)):
        known = {} if value is None else {metric.name: value}
        record = changed(record, name, metrics=known)
    record = changed(record, "unlearned", **changes) if changes else record
    header, (row,) = header_and_rows(record, arrows=arrows)
    return dict(zip(header[1:], row[1:], strict=True))


@pytest.mark.parametrize(
    ("arrows", "shown"), [("distance", "0.079 ↑ 0.04"), ("side", "0.079 ↑"), ("none", "0.079")]
)
def test_behind_a_value_stands_the_way_to_its_reference(arrows, shown):
    found = cells(0.079, 0.115, arrows=arrows)
    assert found["unlearned"] == shown
    assert found["reference"] == "0.115"


def test_within_chance_there_is_no_way():
    assert cells(0.5, 0.45, half_widths={"forget_ma": 0.06})["unlearned"] == "0.500 ≈"
    assert cells(0.5, 0.45, half_widths={"forget_ma": 0.04})["unlearned"] == "0.500 ↓ 0.05"


def test_what_is_absent_is_empty():
    assert cells(None, 0.115)["unlearned"] == ""
    assert cells(0.079, None)["unlearned"] == "0.079"
    assert cells(0.5, 0.5, reference=None)["unlearned"] == "0.500"
    assert cells(0.5, 0.5, reference="of another run")["unlearned"] == "0.500"


def test_a_p_value_meets_nothing():
    assert cells(1.234e-7, 0.5, P)["unlearned"] == "1e-07"


def test_a_metric_that_no_model_has_is_no_row():
    record = record_of([MA])
    wider = record.model_copy(update={"catalogue": [*record.catalogue, P]})
    assert [row[0] for row in header_and_rows(wider)[1]] == ["forget set, MA"]


def test_an_attacked_model_is_compared_with_the_attacked_reference():
    record = record_of([MA], ("relearn",))
    _, ((_, *values),) = header_and_rows(record)
    gap = value_of(MA, 5) - value_of(MA, 4)
    assert values[4] == f"{value_of(MA, 4):.3f} ↑ {gap:.2f}"


def test_groups_are_the_run_and_each_attack():
    record = record_of([MA], ("relearn", "int4"))
    assert column_groups(record) == {
        "": list(ROLES),
        "after the attack relearn": [f"{role}+relearn" for role in ROLES],
        "after the attack int4": [f"{role}+int4" for role in ROLES],
    }


# -- at any width --------------------------------------------------------------------------------


def printed(record, width):
    stream = io.StringIO()
    place = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    for table in tables(record, width):
        place.print(table)
    return stream.getvalue()


LONG = "an_attack_with_a_long_name_of_mine"


@pytest.mark.parametrize("width", [LEAST_WIDTH, 80, 100, 120, 200])
@pytest.mark.parametrize("attack", ["relearn", LONG])
@pytest.mark.parametrize("suite", WORDS)
def test_seven_columns_lose_nothing(suite, attack, width):
    words = WORDS[suite]
    record = record_of(words, (attack,))
    text = printed(record, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for metric in words:
        assert words_of(metric.label) <= words_of(text)
    values = [metric.written(value_of(metric, number)) for metric in words for number in range(6)]
    assert Counter(values) <= Counter(text.split())
    assert text.count("after the attack") == (0 if len(tables(record, width)) == 1 else 1)
    assert attack in text


def words_of(text):
    return set(text.split())


@pytest.mark.parametrize("suite", WORDS)
def test_where_all_columns_fit_there_is_one_table(suite):
    record = record_of(WORDS[suite], ("relearn",))
    assert [len(tables(record, width)) for width in (80, 100, 200)] == [2, 2, 1]
    first = printed(record, 200).splitlines()
    heads = [line.split() for line in first[:4] if line.strip()]
    assert heads[-1][-3:] == ["+relearn"] * 3 or heads[-2][-3:] == ["+relearn"] * 3


def test_each_group_has_its_heading_and_bare_names():
    text = printed(record_of(WORDS["tofu"], ("relearn", "int4")), 80)
    parts = re.split(r"after the attack (\w+)", text)
    assert parts[1::2] == ["relearn", "int4"]
    for part in parts[0::2]:
        assert part.split()[:3] == list(ROLES)
    assert "↑ 0." in text  # how far fits
    assert "arrows:" not in text


def test_a_group_that_is_too_wide_says_where_the_rest_is():
    text = printed(record_of(WORDS["tdec"]), 80)
    assert "arrows: which way the reference is; how far, and all columns: results.md" in text
    assert re.search(r"\d ↑ +\d", text)


def test_brackets_are_no_markup():
    metric = Metric(name="x", label="[red]share[/b] :smile:")
    assert "[red]share[/b] :smile:" in printed(record_of([metric], ("[old]",)), 200)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("20", LEAST_WIDTH), ("200", 200)])
def test_a_terminal_has_its_own_width_unless_it_is_too_narrow(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert console().width == width


def test_what_is_no_terminal_has_a_fixed_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert console().width == PIPED_WIDTH


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_never_fails_for_the_encoding(encoding, monkeypatch, tmp_path):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding=encoding))
    rows = [
        {"model": model, "set": "forget", "row": 1, "question": "я \ud800 \u2028?", "answer": "漢",
         "generation": "[/b] \x1b[31m", "group": "a\u2028b"}
        for model in ("target", "unlearned")
    ]  # fmt: skip
    monkeypatch.setattr(terminal, "read_examples", lambda folder: rows)
    show(record_of([MA]), tmp_path)
    terminal.sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert f"files: {tmp_path}" in text.splitlines()[-1]
    assert "verdict: said of unlearned" in text
    assert "\x1b" not in text
    assert r"\u2028" in text


def test_the_path_that_is_printed_is_the_whole_path(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(terminal, "read_examples", lambda folder: [])
    for name in ("[old] run", "a[/b]c", ":smile:", "x" * 200):
        show(record_of([MA]), tmp_path / name)
        assert capsys.readouterr().out.splitlines()[-1] == f"files: {tmp_path / name}"


# -- title and notes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "phi on tofu · loss ihl · init fila, rank 8"),
        ({"lora.rank": None, "init": None}, "phi on tofu · loss ihl · all weights trained"),
        ({"method": "eco"}, "phi on tofu · method eco · loss ihl · init fila, rank 8"),
        ({"loss": ..., "init": ..., "lora.rank": ..., "method": ...}, "phi on tofu"),
    ],
)
def test_titles(changes, expected):
    record = record_of([MA])
    choices = {k: v for k, v in (record.run.choices | changes).items() if v is not ...}
    for label in ("", "TOY data"):
        run = record.run.model_copy(update={"choices": choices, "label": label})
        shown = expected + (f" · {label}" if label else "")
        assert title(record.model_copy(update={"run": run})) == shown


def test_notes_begin_with_the_verdict_on_every_model_that_was_to_forget():
    assert notes(record_of([MA], ("relearn",))) == [
        "verdict: said of unlearned",
        "verdict on unlearned+relearn: said of unlearned+relearn",
        "protocol: rows",
    ]
