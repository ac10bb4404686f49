"""Snapshots are whole or absent, sealed, and gone on from to the bit; damaged ones are set aside."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from loku_exp.errors import TrainingError
from loku_exp.runtime.cache import MANIFEST, damage, seal
from loku_exp.training import snapshots as module
from loku_exp.training.snapshots import Snapshots, name_of, newest_whole, snapshots_in, step_of
from tests.damage import flip
from tests.helpers import tiny_model
from tests.models.architectures import build
from tests.training.small import trained, weights

STEPS = range(1, 7)  # of a training of `trained`


def callback(place, steps=STEPS, **options):
    return Snapshots(list(steps), place / "snapshots", **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training with a snapshot after each update."""
    place = tmp_path_factory.mktemp("whole")
    history, model = trained(place / "staging", callbacks=[callback(place)])
    return place / "snapshots", history, model


class Killed(BaseException):
    """As Ctrl-C, and not an error that anything may catch."""


def killed_after(place, step, **options):
    """Train until the snapshot after a step is whole."""

    class Killing(Snapshots):
        def on_save(self, args, state, control, **rest):
            super().on_save(args, state, control, **rest)
            if state.global_step == step:
                raise Killed

    with pytest.raises(Killed):
        trained(place / "staging", callbacks=[Killing(list(STEPS), place / "snapshots", **options)])
    return place / "snapshots"


def gone_on(place):
    """Go on from the newest snapshot there is."""
    newest = newest_whole(place / "snapshots")
    return newest, *trained(place / "staging", callbacks=[callback(place)], resume_from=newest)


def same(one, two):
    assert torch.equal(weights(one[1]), weights(two[1]))
    times = ("epoch",)  # is of the part that was trained last
    for ours, theirs in zip(one[0], two[0], strict=True):
        assert {k: v for k, v in ours.items() if k not in times} == {
            k: v for k, v in theirs.items() if k not in times
        }


def test_every_snapshot_is_sealed_and_two_can_be_resumed_from(whole):
    folder, _, _ = whole
    assert [step_of(snapshot) for snapshot in snapshots_in(folder)] == list(STEPS)
    for snapshot in snapshots_in(folder):
        assert damage(snapshot) is None
        assert (snapshot / "model.safetensors").is_file()
        assert not (snapshot / "training_args.bin").exists()
    assert sorted(file.parent.name for file in folder.glob("*/optimizer.state")) == [
        "step-00005", "step-00006"
    ]  # fmt: skip
    assert sorted(file.parent.name for file in folder.glob("*/rng_state*")) == [
        "step-00005", "step-00006"
    ]  # fmt: skip


@pytest.mark.parametrize("step", [1, 4])
def test_a_killed_training_goes_on_to_the_same_weights(whole, tmp_path, step):
    folder = killed_after(tmp_path, step)
    assert [step_of(snapshot) for snapshot in snapshots_in(folder)] == list(range(1, step + 1))
    newest, history, model = gone_on(tmp_path)
    assert newest.name == name_of(step)
    same((history, model), whole[1:])
    assert [step_of(snapshot) for snapshot in snapshots_in(folder)] == list(STEPS)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.state", "trainer_state.json"])
def test_a_damaged_newest_one_is_set_aside_and_the_one_before_is_used(
    whole, tmp_path, file, caplog
):
    folder = killed_after(tmp_path, 4)
    flip(folder / "step-00004" / file)
    newest, history, model = gone_on(tmp_path)
    assert newest.name == "step-00003"
    (aside,) = folder.glob("damaged-step-00004-*")
    assert f"step-00004 is damaged ({file} is not what was written)" in caplog.text
    assert aside.name in caplog.text
    same((history, model), whole[1:])


@pytest.mark.parametrize("left", ["optimizer.state", "manifest.json", "shorter"])
def test_a_snapshot_that_lost_something_is_not_gone_on_from(tmp_path, left):
    folder = killed_after(tmp_path, 3)
    newest = folder / "step-00003"
    if left == "shorter":
        file = newest / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    else:
        (newest / left).unlink()
    assert newest_whole(folder).name == "step-00002"
    # state to resume from may go, so nothing is wrong with a snapshot that lost it
    assert newest.exists() == (left == "optimizer.state")


class Hostile:
    """What makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("name", ["optimizer.state", "rng_state_0.state"])
def test_code_in_the_state_of_a_snapshot_is_not_run(whole, tmp_path, name, caplog):
    folder, ran = killed_after(tmp_path, 2), tmp_path / "ran"
    newest = folder / "step-00002"
    pickled = pickle.dumps(Hostile(ran))
    pickle.loads(pickled)
    assert ran.exists()  # so it would run
    ran.unlink()
    assert (newest / name).is_file()
    for hostile in (
        name,
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
    ):  # as older ones were named
        (newest / hostile).write_bytes(pickled)
    (newest / MANIFEST).unlink()
    seal(newest, {"step": 2}, may_go=module.ONLY_TO_RESUME)  # by somebody who knows of manifests
    with pytest.raises(TrainingError, match=rf"step-00002/{name} is no state of a training"):
        gone_on(tmp_path)
    (newest / name).write_bytes(pickled + b".")  # and by somebody who does not
    before, history, model = gone_on(tmp_path)
    assert before.name == "step-00001"
    assert f"step-00002 is damaged ({name} has " in caplog.text
    same((history, model), whole[1:])
    assert not ran.exists()


def test_a_damaged_older_one_is_set_aside_too(tmp_path, caplog):
    folder = killed_after(tmp_path, 4)
    flip(folder / "step-00001/model.safetensors")
    assert newest_whole(folder).name == "step-00004"
    assert [step_of(snapshot) for snapshot in snapshots_in(folder)] == [2, 3, 4]
    assert "step-00001 is damaged" in caplog.text


def test_where_none_can_be_resumed_from_training_begins_again(whole, tmp_path):
    folder = killed_after(tmp_path, 4)
    for name in ("step-00003", "step-00004"):
        flip(folder / name / "model.safetensors")
    stale = (folder / "step-00002/model.safetensors").stat().st_mtime_ns
    newest, history, model = gone_on(tmp_path)
    assert newest is None
    same((history, model), whole[1:])
    assert [step_of(snapshot) for snapshot in snapshots_in(folder)] == list(STEPS)
    assert (folder / "step-00002/model.safetensors").stat().st_mtime_ns != stale


def test_what_an_earlier_training_left_behind_a_snapshot_goes_with_it(tmp_path):
    """Of steps 1 to 4 only 1 and 2 stay: none of them can be resumed from, and a new 1 comes."""
    folder = killed_after(tmp_path, 4)
    for name in ("step-00003", "step-00004"):
        flip(folder / name / "model.safetensors")
    assert newest_whole(folder) is None
    killed_after(tmp_path, 1)
    assert [step_of(snapshot) for snapshot in snapshots_in(folder)] == [1]
    assert newest_whole(folder).name == "step-00001"


def test_two_are_kept_where_they_serve_going_on_alone(tmp_path):
    folder = killed_after(tmp_path, 5, only_newest=True)
    assert [step_of(snapshot) for snapshot in snapshots_in(folder)] == [4, 5]
    flip(folder / "step-00005/optimizer.state")
    assert newest_whole(folder).name == "step-00004"


def test_snapshots_cost_no_more_of_the_time_than_their_share(tmp_path, monkeypatch):
    now = iter([0.0, 4, 8, 12, 14, 18, 30, 54, 56])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(now)))
    trained(tmp_path / "staging", callbacks=[callback(tmp_path, share=0.05)])
    # asked at 4, 8, 12 (half a second is a share of 10; it costs 2), 18, 30, 54 (2 are a share of 40)
    assert [step_of(snapshot) for snapshot in snapshots_in(tmp_path / "snapshots")] == [3, 6]


def test_a_kill_amid_a_checkpoint_leaves_no_snapshot(tmp_path, monkeypatch):
    def full(*_, **__):
        raise Killed

    monkeypatch.setattr(module, "seal", full)
    with pytest.raises(Killed):
        trained(tmp_path / "staging", callbacks=[callback(tmp_path)])
    assert snapshots_in(tmp_path / "snapshots") == []


def test_a_snapshot_holds_the_weights_of_its_step(whole):
    from safetensors.torch import load_file

    folder, _, model = whole
    last = load_file(folder / "step-00006/model.safetensors")
    for name, parameter in model.named_parameters():
        if name in last:
            assert torch.equal(last[name], parameter)
    first = load_file(folder / "step-00001/model.safetensors")
    untouched = dict(tiny_model().named_parameters())
    # the official schedule begins at a rate of 0
    assert all(torch.equal(first[name], untouched[name]) for name in first if name in untouched)
    assert any(not torch.equal(first[name], last[name]) for name in last)
    assert (folder / "step-00001" / MANIFEST).is_file()


@pytest.mark.parametrize("kind", ["llama", "gpt_neo", "gpt_neox", "mixtral"])
def test_all_weights_go_on_whatever_names_they_are_saved_under(kind, tmp_path):
    """Some architectures are saved under other names than they have; none may stay as it began."""
    whole = trained(tmp_path / "whole" / "staging", model=build(kind))

    class Killing(Snapshots):
        def on_save(self, args, state, control, **rest):
            super().on_save(args, state, control, **rest)
            if state.global_step == 3:
                raise Killed

    killing = Killing(list(STEPS), tmp_path / "snapshots")
    with pytest.raises(Killed):
        trained(tmp_path / "staging", model=build(kind), callbacks=[killing])
    newest = newest_whole(tmp_path / "snapshots")
    resumed = trained(tmp_path / "staging", model=build(kind), resume_from=newest)
    same(whole, resumed)


def test_snapshots_are_in_the_order_of_their_updates(tmp_path):
    for step in (99_999, 100_000, 5):
        (tmp_path / name_of(step)).mkdir()
    assert [step_of(path) for path in snapshots_in(tmp_path)] == [5, 99_999, 100_000]
