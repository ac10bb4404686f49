"""The study's verdicts and tables are what its committed runs give, and the page shows these."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import study
from loku_exp.claims.judging import judge_claims
from loku_exp.claims.registered import read_claims
from loku_exp.claims.shown import write_verdicts
from loku_exp.report.collect import collect
from loku_exp.results import files

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/smollm2.md"


@pytest.fixture(scope="module")
def runs():
    return collect(ROOT / study.STUDY / "runs").runs


@pytest.fixture(scope="module")
def claims():
    return read_claims(ROOT / study.CLAIMS)


def test_the_tables_are_of_the_committed_runs_and_stand_on_the_page(runs, claims):
    committed = (ROOT / study.STUDY / "runs.md").read_text()
    assert study.tables(runs, claims.level) == committed
    page = PAGE.read_text().splitlines()
    assert [line for line in committed.splitlines() if line not in page] == []


def test_the_table_of_the_pile_is_of_its_committed_record():
    shown = {
        "forget set, EL_10": "forget_el10", "forget set, MA": "forget_ma",
        "siblings, EL_10": "sibling_el10", "siblings, MA": "sibling_ma",
        "retain set, MA": "retain_ma", "unseen text, EL_10": "unseen_el10",
        "unseen text, MA": "unseen_ma", "pile, perplexity per token": "pile_ppl",
        "wikitext (in domain), perplexity per token": "wikitext_in_domain_ppl",
        "reasoning (mean of 8 local tasks)": "reasoning_local",
        "dialogue (mean F1 of four)": "dialogue",
    }  # fmt: skip
    models = files.read(ROOT / study.STUDY / "tdec").models
    tasks = [name for name in models["target"].metrics if name.endswith("_acc")]
    shown |= {f"{name.removesuffix('_acc')}, accuracy": name for name in tasks}
    page = PAGE.read_text().split("## Texts of The Pile")[1].split("\n## ")[0]
    for label, name in shown.items():
        values = [
            models[role].metrics.get(name)
            for role in ("untuned", "target", "unlearned", "reference")
        ]
        digits = 1 if name.endswith("_ppl") else 3
        cells = ["" if value is None else f"{value:.{digits}f}" for value in values]
        assert f"| {label} | {' | '.join(cells)} |" in page
    assert len(tasks) == 10


def test_the_verdicts_are_of_the_committed_runs_and_stand_on_the_page(runs, claims, tmp_path):
    judged = judge_claims(claims, runs)
    assert judged.left_out == {}
    write_verdicts(judged, claims, tmp_path)
    committed = (ROOT / study.STUDY / "claims.md").read_text()
    assert (tmp_path / "claims.md").read_text() == committed
    page = PAGE.read_text().splitlines()
    assert [line for line in committed.splitlines() if line[:1] == "|" and line not in page] == []


def test_a_runs_folder_is_named_by_what_it_is(runs):
    assert len(runs) >= 29
    assert {study.name_of(run) for run in runs} == {run.folder.name for run in runs}


def test_what_is_kept_can_be_read_again_and_names_no_place(runs, tmp_path):
    run = runs[0]
    (tmp_path / "out").mkdir()
    study.keep([run], tmp_path / "out")
    (kept,) = collect(tmp_path / "out").runs
    assert kept.record.curve == run.record.curve
    assert kept.record.models["unlearned"].metrics == run.record.models["unlearned"].metrics
    assert kept.config == run.config
    committed = [*(ROOT / study.STUDY / "runs").rglob("config.yaml")]
    committed += (ROOT / study.STUDY).rglob("metrics.json")
    for file in committed:
        assert not re.search(r': "?/', file.read_text())


def test_a_path_is_cut_to_its_last_name():
    node = {
        "path": "/a/b/tofu",
        "cache": "~/.cache/x",
        "name": "smollm2",
        "deep": {"data": "/c/d"},
        "n": 3,
    }
    node["several"] = ["/e/f", "g"]
    expected = {"path": "tofu", "cache": "x", "name": "smollm2", "deep": {"data": "d"}, "n": 3}
    expected["several"] = ["f", "g"]
    assert study._without_places(node) == expected


def test_a_run_that_never_comes_down_has_a_dash(runs, claims):
    run = next(run for run in runs if run.folder.name == "base0-ihl-vanilla-r4-0.003")
    assert min(point.metrics["forget_prob"] for point in run.record.curve) > claims.level
    assert "| IHL, vanilla, rank 4 | 0.442 / 0.907 | – |" in study.tables([run], claims.level)


def test_what_is_kept_at_the_level_by_hand(runs):
    run = next(run for run in runs if run.folder.name == "base0-ihl-vanilla-r16-0.003")
    path = [(0.9, 1.0), (0.5, 0.8), (0.3, 0.4)]
    points = [
        point.model_copy(update={"metrics": {"forget_prob": forget, "retain_prob": retain}})
        for point, (forget, retain) in zip(run.record.curve, path, strict=False)
    ]
    short = replace(run, record=run.record.model_copy(update={"curve": points}))
    # .35 lies three quarters of the way from .5 to .3, so .8 - .75 * .4
    assert study._at(short, 0.35) == pytest.approx(0.5)
