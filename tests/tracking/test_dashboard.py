"""The workspace: its panels name what runs log; without a package, key or server it says so."""

import json
import sys

import pytest

from loku_exp.errors import UserError
from loku_exp.tracking import dashboard

pytest.importorskip("wandb_workspaces")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def panels_of(content: dict) -> dict[str, list[dict]]:
    sections = content["spec"]["section"]["panel_bank_config"]["sections"]
    return {section["name"]: [p["config"] for p in section["panels"]] for section in sections}


def test_printed_without_a_login(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboard", "--print", "--project", "mine"])
    dashboard.main()
    content = json.loads(capsys.readouterr().out)
    assert content["project"] == "mine"
    panels = panels_of(content)
    assert list(panels) == [
        "Forgetting against utility",
        "Against rank",
        "Unlearning curves",
        "TDEC success",
    ]
    first = panels["Forgetting against utility"][0]
    assert first["x_axis"] == "summary:unlearned/model_utility"
    assert first["y_axis"] == "summary:unlearned/forget_quality"
    assert {panel["x_axis"] for panel in panels["Against rank"]} == {"config:lora.value.rank"}
    assert panels["Unlearning curves"][0]["metrics"] == ["unlearning/forget_loss"]
    assert panels["TDEC success"][0]["group_agg"] == "mean"
    grouping = content["spec"]["section"]["run_sets"][0]["grouping"]
    assert [group["name"] for group in grouping] == ["method.value", "lora.value.rank"]


def test_every_method_has_a_colour_of_its_own():
    assert len(set(dashboard.COLORS.values())) == len(dashboard.COLORS)
    colors = dashboard.specification(dashboard.workspace("e", "p"))["spec"]["section"]
    for color in dashboard.COLORS.values():
        assert list(colors["custom_run_colors"].values()).count(color) == 1 + len(dashboard.RANKS)


def test_without_a_key_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dashboard", "--entity", "me"])
    with pytest.raises(SystemExit) as end:
        dashboard.main()
    assert end.value.code == 1
    assert "wandb login, or set WANDB_API_KEY; --print shows" in capsys.readouterr().err


def test_without_the_package_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'loku_exp\[dashboard\]'"):
        dashboard.workspace("e", "p")
