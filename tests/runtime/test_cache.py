"""Cache entries are whole or absent, checked when used, and built once."""

import json
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
    digest,
    folder_digest,
    is_whole,
    write_file,
    write_text,
)


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


@pytest.mark.parametrize("damage", ["shorten", "remove", "manifest"])
def test_a_damaged_entry_is_built_again(tmp_path, damage):
    cache = Cache(tmp_path)
    path = cache.entry("models", {}, fill)
    if damage == "shorten":
        (path / "weights").write_bytes(b"x")
    elif damage == "remove":
        (path / "sub/more").unlink()
    else:
        (path / MANIFEST).write_text("{")
    assert not is_whole(path)
    assert is_whole(cache.entry("models", {}, fill))


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
    left = cache.path("models", {}).with_name(f".{cache.path('models', {}).name}-dead")
    left.mkdir(parents=True)
    cache.entry("models", {}, fill)
    assert not left.exists()
