"""A run that was ended, at whatever point, goes on with the same command to the same numbers."""

import json
import resource

import pytest
import torch
from safetensors.torch import load_file

from loku_exp.errors import StorageError
from loku_exp.results import files as results
from loku_exp.runtime.cache import damage
from loku_exp.stages import finetuning
from loku_exp.training.snapshots import Snapshots
from tests.damage import flip
from tests.helpers import killed_at_its_first_snapshot
from tests.runs.running import (
    forget_end,
    in_killed_process,
    kill_in_batch,
    same_numbers,
    start,
    unasked_cache,
)


def same_snapshots(one, two):
    for step in ("step-00005", "step-00010"):
        file = f"snapshots/{step}/adapter_model.safetensors"
        ours, theirs = load_file(one / file), load_file(two / file)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_resumed_equals_uninterrupted(quick, begin, tmp_path):
    with killed_at_its_first_snapshot():
        begin()
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.glob("snapshots/*")) == ["step-00005"]
    assert not (folder / "done.json").exists()
    assert begin() == folder
    same_snapshots(quick, folder)
    same_numbers(quick, folder)


@pytest.mark.slow
def test_a_regularised_run_measures_again_and_goes_on_to_the_same(quick, begin, tmp_path):
    words = ["regulariser=rol", "regulariser.rank=8", "evaluation.curve=none"]
    whole = begin(*words, output=tmp_path / "whole")
    with killed_at_its_first_snapshot():
        begin(*words, output=tmp_path / "killed")
    (folder,) = (tmp_path / "killed").iterdir()
    assert begin(*words, output=tmp_path / "killed") == folder
    same_snapshots(whole, folder)
    same_numbers(whole, folder)
    record = results.read(folder)
    assert record.run.choices["regulariser"] == "rol"
    assert record.run.id != results.read(quick).run.id
    assert all(term > 0 for term in record.training["rol_loss"])
    assert "loss ihl + rol" in (folder / "results.md").read_text()


def test_a_killed_process_is_gone_on_from_its_newest_whole_snapshot(quick, begin, tmp_path):
    """Killed after its last update; the snapshot of that one is damaged before it goes on."""
    keep = Snapshots.on_save

    def killed(self, args, state, control, **rest):
        import os
        import signal

        keep(self, args, state, control, **rest)
        if state.global_step == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshots, "on_save", killed)
        in_killed_process(begin)
    (folder,) = tmp_path.iterdir()
    flip(folder / "snapshots/step-00010/optimizer.state")
    assert begin() == folder
    assert len(list(folder.glob("snapshots/damaged-step-00010-*"))) == 1
    same_snapshots(quick, folder)
    same_numbers(quick, folder)


@pytest.mark.slow
def test_a_killed_fine_tuning_of_a_base_goes_on(quick, begin, tmp_path, monkeypatch, caplog):
    """As a cluster's job does that was queued again after its time limit."""
    monkeypatch.setattr(finetuning, "SHARE_OF_SNAPSHOTS", float("inf"))
    places = {"cache": tmp_path / "cache", "output": tmp_path / "out"}
    with killed_at_its_first_snapshot():
        begin(**places)
    (left,) = (tmp_path / "cache/models").glob("*.unfinished/step-*")
    caplog.set_level("INFO")
    folder = begin(**places)
    assert f"goes on from {left.name}" in caplog.text
    assert f"the target is {results.read(folder).models['target'].path}" in caplog.text
    same_numbers(quick, folder)


def test_a_run_killed_before_its_end_repeats_nothing(quick, copied, begin, asked):
    forget_end(copied)
    stamps = {file: file.stat().st_mtime_ns for file in copied.glob("snapshots/*/*")}
    assert begin(output=copied.parent) == copied
    assert {file: file.stat().st_mtime_ns for file in copied.glob("snapshots/*/*")} == stamps
    assert asked.requests == {}
    same_numbers(quick, copied)


def test_a_damaged_adapter_is_made_again(quick, copied, begin):
    forget_end(copied)
    flip(copied / "adapter/adapter_model.safetensors")
    begin(output=copied.parent)
    assert damage(copied / "adapter") is None
    same_numbers(quick, copied)


# -- evaluations ---------------------------------------------------------------------------------


def answers(place):
    """The lines of all answers kept at a place, by file."""
    files = sorted(place.rglob("answers.jsonl"))
    return {file: file.read_text().splitlines() for file in files}


def keys_of(lines):
    """The keys of what was answered, batch by batch, a line each."""
    return [key for line in lines for key in json.loads(line.partition(" ")[2])[1]]


KILLED = {
    "target": ("target", 4, []),
    "reference": ("reference", 2, []),
    "only evaluated": ("target", 4, ["unlearn=false"]),
    "along the way": ("unlearned after update 5", 2, []),
    "unlearned": ("unlearned", 3, []),
    "attacked target": ("target+relearn", 3, ["attacks=[relearn]", "attacks.relearn.steps=2"]),
    "attacked unlearned": (
        "unlearned+relearn",
        3,
        ["attacks=[relearn]", "attacks.relearn.steps=2"],
    ),
}


@pytest.fixture(scope="module")
def undisturbed(quick, tmp_path_factory, shared_cache):
    """Finished runs by their further overrides."""
    made = {(): quick}

    def run(overrides):
        if tuple(overrides) not in made:
            place = tmp_path_factory.mktemp("undisturbed")
            made[tuple(overrides)] = start(place, shared_cache, *overrides)
        return made[tuple(overrides)]

    return run


@pytest.mark.parametrize(
    "when",
    [pytest.param(w, marks=[] if w == "unlearned" else [pytest.mark.slow]) for w in KILLED],
)
def test_a_killed_evaluation_goes_on_with_what_was_answered(
    undisturbed, begin, tmp_path, shared_cache, when, asked
):
    name, batches, overrides = KILLED[when]
    whole = undisturbed(overrides)
    cache, output = unasked_cache(shared_cache, tmp_path / "cache"), tmp_path / "out"

    def killed():
        kill_in_batch(name, batches)
        begin(*overrides, output=output, cache=cache)

    in_killed_process(killed)
    (folder,) = output.iterdir()
    assert not (folder / "done.json").exists()
    before = answers(tmp_path)
    assert sum(map(len, before.values())) > 0
    asked.requests.clear()
    begin(*overrides, output=output, cache=cache)
    after = answers(tmp_path)
    for file, lines in after.items():
        keys = keys_of(lines)
        assert len(keys) == len(set(keys)), "something was answered twice"
        assert lines[: len(before.get(file, []))] == before.get(file, [])
    # all that is asked now had no answer before
    new = sum(len(keys_of(lines[len(before.get(file, [])) :])) for file, lines in after.items())
    assert sum(asked.requests.values()) == new
    assert asked.requests[name] > 0
    same_numbers(whole, folder)


def test_a_line_of_answers_that_was_cut_off_is_asked_again(quick, copied, begin, asked):
    forget_end(copied)
    file = max(copied.rglob("answers.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-3]) + lines[-3][: len(lines[-3]) // 2])
    assert begin(output=copied.parent) == copied
    assert sum(asked.requests.values()) == len(keys_of(lines[-3:]))
    same_numbers(quick, copied)


def test_a_run_that_finds_no_room_names_the_place_and_leaves_no_half(quick, begin, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"init\.safetensors cannot be written .*make room"):
            begin()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (folder,) = tmp_path.iterdir()
    left = {file.name for file in folder.iterdir()}
    assert left <= {"run.log", "config.yaml", "commit", ".lock", "seconds.json"}
    assert begin() == folder
    same_numbers(quick, folder)
