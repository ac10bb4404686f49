"""A run takes what another one has unlearned, whole or not at all."""

import json
from types import SimpleNamespace

import pytest

from loku_exp.stages import unlearn
from loku_exp.stages.unlearn import take_over


def test_a_kill_amid_it_leaves_no_part_of_the_way(tmp_path, monkeypatch):
    for step in ("step-00001", "step-00002"):
        folder = tmp_path / "other/snapshots" / step
        folder.mkdir(parents=True)
        (folder / "adapter_model.safetensors").write_text(step)
    for name in ("init.safetensors", "init.sha256", "done.json"):
        (tmp_path / "other" / name).write_text(name)
    (tmp_path / "other/unlearning.json").write_text(json.dumps({"unlearning": "same"}))
    workspace, config = SimpleNamespace(folder=tmp_path / "own"), SimpleNamespace(force=False)
    workspace.folder.mkdir()
    link, linked = unlearn._link, []

    def killed(source, place):
        if len(linked) == 3:  # the factors, and one of two snapshots
            raise KeyboardInterrupt
        linked.append(source)
        link(source, place)

    monkeypatch.setattr(unlearn, "_link", killed)
    with pytest.raises(KeyboardInterrupt):
        take_over(config, workspace, "same")
    assert not (workspace.folder / "snapshots").exists()
    monkeypatch.setattr(unlearn, "_link", link)
    take_over(config, workspace, "same")
    taken = {str(f.relative_to(workspace.folder)) for f in workspace.folder.rglob("*")}
    steps = {f"snapshots/{name}/adapter_model.safetensors" for name in ("step-00001", "step-00002")}
    folders = {"snapshots", "snapshots/step-00001", "snapshots/step-00002"}
    assert taken == {"init.safetensors", "init.sha256"} | steps | folders


def test_what_a_kill_left_aside_goes_where_the_run_has_begun(tmp_path):
    (tmp_path / "own/.taken").mkdir(parents=True)
    (tmp_path / "own/.taken/adapter").write_text("of the other run")
    (tmp_path / "own/init.safetensors").write_text("taken before the kill")
    workspace, config = SimpleNamespace(folder=tmp_path / "own"), SimpleNamespace(force=False)
    take_over(config, workspace, "same")
    assert [file.name for file in workspace.folder.iterdir()] == ["init.safetensors"]
