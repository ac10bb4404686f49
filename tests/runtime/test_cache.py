"""Cache entries are whole or absent, checked when used, and built once."""

import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from loku_exp.errors import StorageError
from loku_exp.runtime.cache import (
    MANIFEST,
    Cache,
    damage,
    digest,
    file_digest,
    folder_digest,
    is_whole,
    seal,
    whole_folder,
    write_folder,
)
from loku_exp.runtime.whole_files import drop_half_written, write_file, write_text
from tests.damage import flip


def fill(folder):
    (folder / "weights").write_bytes(b"x" * 100)
    (folder / "sub").mkdir()
    (folder / "sub/more").write_text("y")


def test_an_entry_is_built_once(tmp_path):
    cache, built = Cache(tmp_path), []

    def build(folder):
        built.append(1)
        fill(folder)

    first = cache.entry("models", {"seed": 1}, build)
    assert cache.entry("models", {"seed": 1}, build) == first
    assert built == [1]
    assert cache.has("models", {"seed": 1})
    assert not cache.has("models", {"seed": 2})
    assert json.loads((first / MANIFEST).read_text())["recipe"] == {"seed": 1}


def test_parallel_requests_build_once(tmp_path):
    cache, built = Cache(tmp_path), []

    def build(folder):
        built.append(1)
        fill(folder)

    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: cache.entry("models", {"seed": 1}, build), range(4)))
    assert len(set(paths)) == 1
    assert built == [1]


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def build(folder):
        fill(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        Cache(tmp_path).entry("models", {}, build)
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == []


def test_a_killed_build_leaves_no_entry_and_is_built_again(tmp_path):
    code = (
        "import os, signal, sys; from loku_exp.runtime.cache import Cache\n"
        "def build(folder):\n"
        "    (folder / 'weights').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "Cache(sys.argv[1]).entry('models', {}, build)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert result.returncode < 0
    cache = Cache(tmp_path)
    assert not cache.has("models", {})
    assert (cache.entry("models", {}, fill) / "weights").stat().st_size == 100


def shorten(path):
    (path / "weights").write_bytes(b"x")


def remove(path):
    (path / "sub/more").unlink()


def turn(path):
    flip(path / "weights")


def turn_below(path):
    flip(path / "sub/more")


def tear_the_manifest(path):
    (path / MANIFEST).write_text("{")


def lose_the_manifest(path):
    (path / MANIFEST).unlink()


def age_the_manifest(path):
    """As an earlier version wrote it: sizes alone."""
    content = json.loads((path / MANIFEST).read_text())
    content["files"] = {name: written["size"] for name, written in content["files"].items()}
    del content["sum"]
    (path / MANIFEST).write_text(json.dumps(content))


def turn_the_manifest(path):
    """One bit of what an entry was made by: no file of it differs."""
    text = (path / MANIFEST).read_text()
    assert '"base": "target"' in text
    (path / MANIFEST).write_text(text.replace('"base": "target"', '"base": "uarget"'))


HARM = {
    shorten: "weights has 1 bytes, 100 were written",
    remove: "sub/more is missing",
    turn: "weights is not what was written",
    turn_below: "sub/more is not what was written",
    tear_the_manifest: "its manifest.json cannot be read",
    lose_the_manifest: "it has no manifest.json",
    age_the_manifest: "its manifest.json is of an earlier version",
    turn_the_manifest: "its manifest.json is not what was written",
}
RECIPE = {"base": "target", "rate": 1e-4}


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_a_damaged_entry_is_set_aside_and_built_again(tmp_path, harm, caplog):
    cache = Cache(tmp_path)
    path = cache.entry("models", RECIPE, fill)
    assert damage(path) is None
    harm(path)
    assert damage(path) == HARM[harm]
    harmed = {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert cache.entry("models", RECIPE, fill) == path
    assert damage(path) is None
    (aside,) = (tmp_path / "models").glob(f"damaged-{path.name}-*")
    left = {file.name: file.read_bytes() for file in aside.rglob("*") if file.is_file()}
    assert left == harmed  # nobody is deprived of it
    assert f"{path} is damaged ({HARM[harm]}) and was set aside as {aside.name}" in caplog.text


@pytest.mark.parametrize("harm", [shorten, remove, tear_the_manifest, lose_the_manifest])
def test_a_quick_look_sees_what_needs_no_reading(tmp_path, harm):
    cache = Cache(tmp_path)
    path = cache.entry("models", {}, fill)
    assert is_whole(path)
    harm(path)
    assert not is_whole(path)


def test_every_file_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """A manifest that survives a crash must not vouch for files that did not."""
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        done.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def renamed(source, place):
        done.append(("rename", os.path.basename(place)))
        replace(source, place)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    path = Cache(tmp_path).entry("models", {}, fill)
    kinds = [what for what, _ in done]
    rename = kinds.index("rename")
    assert done[rename] == ("rename", path.name)
    assert {name for _, name in done[:rename]} == {"weights", "more", MANIFEST}
    assert done[rename - 1] == ("sync", MANIFEST)  # after what it vouches for
    assert done[rename + 1 :] == [("sync", "models")]  # and the name itself
    done.clear()
    write_text(tmp_path / "file", "text")
    assert [what for what, _ in done] == ["sync", "rename", "sync"]
    assert done[0][1].endswith("file")


def test_a_file_system_that_cannot_sync_is_no_error(tmp_path, monkeypatch):
    def cannot(_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", cannot)
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


def test_a_manifest_of_an_earlier_version_without_its_own_sum_is_taken(tmp_path):
    path = Cache(tmp_path).entry("models", RECIPE, fill)
    content = json.loads((path / MANIFEST).read_text())
    del content["sum"]
    (path / MANIFEST).write_text(json.dumps(content))
    assert damage(path) is None


def test_files_are_read_once_a_process(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    path = cache.entry("models", {}, fill)
    cache.entry("models", {}, fill)  # reads them where they lie now
    read = []
    whole = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda stream, name: read.append(stream.name) or whole(stream, name)
    )
    for _ in range(3):
        cache.entry("models", {}, fill)
        assert folder_digest(path)
    assert [os.path.basename(name) for name in read] == [MANIFEST]  # no file of its own
    flip(path / "weights")
    assert damage(path) == "weights is not what was written"
    file_digest(path / "sub/more")  # stayed as it was
    assert [os.path.basename(name) for name in read] == [MANIFEST, "weights"]


def test_what_may_go_is_checked_as_long_as_it_is_there(tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    fill(folder)
    seal(folder, {"step": 3}, may_go=("wei*",))
    assert damage(folder) is None
    flip(folder / "weights")
    assert damage(folder) == "weights is not what was written"
    (folder / "weights").unlink()
    assert damage(folder) is None
    assert (folder / "sub/more").exists()
    (folder / "sub/more").unlink()
    assert damage(folder) == "sub/more is missing"


def test_a_folder_of_a_run_is_built_where_it_is_absent_or_damaged(tmp_path, caplog):
    built = []

    def build(folder):
        built.append(1)
        fill(folder)

    place = tmp_path / "run/adapter"
    for _ in range(2):
        assert whole_folder(place, build, {"base": "x"}) == place
    assert built == [1]
    flip(place / "weights")
    whole_folder(place, build, {"base": "x"})
    assert (len(built), damage(place)) == (2, None)
    assert [path.name.rpartition("-")[0] for path in place.parent.glob("damaged-*")] == [
        "damaged-adapter"
    ]
    assert caplog.record_tuples[-1][1] == logging.WARNING


def test_digests_see_content_not_place_or_notation(tmp_path):
    assert digest({"a": 1e-4, "b": 2}) == digest({"b": 2, "a": 0.0001})
    assert digest({"a": 1}) != digest({"a": 2})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")
    (tmp_path / "two/weights").write_bytes(b"z" * 100)
    assert folder_digest(tmp_path / "one") != folder_digest(tmp_path / "two")


def test_text_is_written_whole(tmp_path):
    write_text(tmp_path / "file", "one")
    write_text(tmp_path / "file", "two")
    assert (tmp_path / "file").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def full_disk():
    """Let no file grow over 50 kB, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


MANY = torch.zeros(100_000)
WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": lambda path: torch.save(MANY, path),
    "safetensors": lambda path: save_file({"x": MANY}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_without_room_the_file_is_named_and_the_old_one_stays(tmp_path, full_disk, name):
    file = tmp_path / "result.json"
    file.write_text("old")
    with pytest.raises(StorageError, match=r"result\.json cannot be written \(.*make room"):
        write_file(file, WRITERS[name])
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_without_room_there_is_no_entry(tmp_path, full_disk):
    def build(folder):
        (folder / "small").write_text("x")
        (folder / "weights").write_bytes(b"x" * 100_000)

    cache = Cache(tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        cache.entry("models", {"seed": 1}, build)
    assert not cache.has("models", {"seed": 1})
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


def test_other_errors_of_a_writer_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_file(tmp_path / "x", lambda path: 1 / 0)


def test_what_a_killed_process_left_aside_is_dropped(tmp_path):
    cache = Cache(tmp_path)
    left = cache.path("models", {}).with_name(f".{cache.path('models', {}).name}-deadbeef")
    left.mkdir(parents=True)
    cache.entry("models", {}, fill)
    assert not left.exists()


def test_what_a_killed_process_was_writing_is_dropped(tmp_path):
    for name in (".4711.metrics.json", ".lock", ".staging", "metrics.json"):
        (tmp_path / name).write_text("half")
    drop_half_written(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {".lock", ".staging", "metrics.json"}


def test_folders_beside_it_that_begin_alike_stay(tmp_path):
    for name in (".adapter-mine", ".adapter-r2-0a1b2c3d", ".adapter-notes"):
        (tmp_path / name).mkdir()
    write_folder(tmp_path / "adapter", fill, {})
    assert len(list(tmp_path.glob(".adapter-*"))) == 3
