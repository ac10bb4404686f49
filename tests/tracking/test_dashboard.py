"""The workspace: its panels are what the runs measured; without a package, key or server it says so."""

import json
import sys
from types import SimpleNamespace

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.errors import UserError
from loku_exp.stages import record
from loku_exp.stages.begin import method_name
from loku_exp.tracking import dashboard
from tests.report.factory import edit, own_suite, tdec, tofu

pytest.importorskip("wandb_workspaces")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def specified(folder) -> dict:
    return dashboard.specification(dashboard.workspace(dashboard.records_of(folder)[0], "e", "p"))


def panels_of(content: dict) -> dict[str, list[dict]]:
    sections = content["spec"]["section"]["panel_bank_config"]["sections"]
    return {section["name"]: [p["config"] for p in section["panels"]] for section in sections}


def test_printed_without_a_login(monkeypatch, capsys, tmp_path):
    tofu(tmp_path / "runs")
    monkeypatch.setattr(
        sys, "argv", ["dashboard", str(tmp_path / "runs"), "--json", "--project", "mine"]
    )
    dashboard.main()
    content = json.loads(capsys.readouterr().out)
    assert content["project"] == "mine"
    panels = panels_of(content)
    assert list(panels) == [
        "Forgetting against utility",
        "Against rank",
        "Unlearning curves",
        "Success",
        "By method",
    ]
    first = panels["Forgetting against utility"][0]
    assert first["x_axis"] == "summary:unlearned/retain_prob"
    assert first["y_axis"] == "summary:unlearned/forget_quality"
    assert first["y_axis_log_scale"]
    assert {panel["x_axis"] for panel in panels["Against rank"]} == {"config:lora.value.rank"}
    assert ["snapshot/forget_prob"] in [panel["metrics"] for panel in panels["Unlearning curves"]]
    assert panels["Success"][0]["metrics"] == ["summary_metrics.success"]
    assert panels["Success"][0]["group_agg"] == "mean"
    grouping = content["spec"]["section"]["run_sets"][0]["grouping"]
    assert [group["name"] for group in grouping] == ["method.value", "lora.value.rank"]


def test_the_outline_is_short_and_for_people(monkeypatch, capsys, tmp_path):
    tofu(tmp_path / "runs")
    monkeypatch.setattr(sys, "argv", ["dashboard", str(tmp_path / "runs"), "--print"])
    dashboard.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Unlearning (entity/loku_exp)"
    assert "Forgetting against utility" in lines
    assert "  forget quality p against retain set, probability" in lines
    assert len(lines) < 60


def test_epochs_to_forget_are_shown_where_a_stop_rule_counts_them(tmp_path):
    tdec(tmp_path)
    shown = [panel["metrics"] for panel in panels_of(specified(tmp_path))["Success"]]
    assert shown == [["summary_metrics.success"], ["summary_metrics.epochs_to_forget"]]


def test_a_users_own_suite_has_panels_in_its_own_words(tmp_path):
    own_suite(tmp_path, hush=1.0)
    panels = panels_of(specified(tmp_path))
    assert list(panels) == ["Success", "By method"]  # no utility, no rank, no curve
    (panel,) = panels["By method"]
    assert panel["chart_title"] == "spells known"
    assert panel["metrics"] == ["summary_metrics.unlearned/spells"]


def test_every_method_has_a_colour_of_its_own(tmp_path):
    for loss in ("gd", "ihl", "ga"):
        for rank in (4, 8):
            tofu(tmp_path, loss=loss, rank=rank)
    tofu(tmp_path, init=None, rank=None)
    colors = list(specified(tmp_path)["spec"]["section"]["custom_run_colors"].values())
    used = [color for color in colors if color in dashboard.COLORS]
    assert len(set(used)) == 4
    assert all(used.count(color) == 1 + 2 for color in set(used))  # alone, and at each rank


def test_before_the_first_run_there_are_losses_and_success(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["dashboard", str(tmp_path), "--json"])
    dashboard.main()
    said = capsys.readouterr()
    assert list(panels_of(json.loads(said.out))) == ["Unlearning curves", "Success"]
    assert "no finished run yet" in said.err


def test_a_record_of_an_earlier_schema_is_named_and_skipped(tmp_path):
    tofu(tmp_path)
    edit(tofu(tmp_path, loss="gd"), lambda record: record.update(schema=1))
    records, (problem,) = dashboard.records_of(tmp_path)
    assert len(records) == 1
    assert "schema 1, written by an earlier version" in problem


def test_without_a_key_it_says_what_to_do(monkeypatch, capsys, tmp_path):
    tofu(tmp_path / "runs")
    monkeypatch.setattr(sys, "argv", ["dashboard", str(tmp_path / "runs"), "--entity", "me"])
    with pytest.raises(SystemExit) as end:
        dashboard.main()
    assert end.value.code == 1
    assert "wandb login, or set WANDB_API_KEY; --print shows" in capsys.readouterr().err


def test_without_the_package_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'loku_exp\[dashboard\]'"):
        dashboard.workspace([], "e", "p")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["init=rila"], "ihl rila"),
        (["init=rila", "regulariser=rol"], "ihl + rol rila"),
        (["loss=gd", "lora=none"], "gd all weights"),
        (["method=prompt_corruption"], "prompt_corruption"),
    ],
)
def test_runs_are_grouped_by_the_name_their_tracker_gave_them(words, name):
    config = compose_config(words)
    choices = record._choices(config)
    finished = SimpleNamespace(run=SimpleNamespace(choices=choices))
    assert method_name(config) == dashboard._method(finished) == name
