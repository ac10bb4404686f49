"""The cache command: what it lists, and what it may not remove."""

import json
import os
import shutil
import time

import pytest
from filelock import FileLock

from loku_exp.cache.__main__ import main
from loku_exp.cache.entries import entries_in, remove
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.sizes import size_in_words


@pytest.fixture
def cache(tmp_path):
    made = Cache(tmp_path)
    for name, size in (("old", 3000), ("new", 2000)):
        made.entry(
            "models", {"name": name}, lambda folder, n=size: (folder / "w").write_bytes(b"x" * n)
        )
    answers = tmp_path / "answers" / "0123456789abcdef"
    answers.mkdir(parents=True)
    (answers / "answers.jsonl").write_text(json.dumps([1]))
    (tmp_path / "models" / "fedcba9876543210.unfinished").mkdir()
    return made


def of(cache, state):
    return [entry for entry in entries_in(cache.root) if entry.state == state]


def test_everything_is_listed_with_its_state_the_largest_first(cache):
    found = entries_in(cache.root)
    assert [entry.kind for entry in found] == ["models", "models", "answers", "models"]
    assert found[0].size > 3000 > found[1].size > 2000
    assert [entry.state for entry in found] == ["whole", "whole", "whole", "unfinished"]
    (found[0].path / "w").unlink()
    assert [entry.path for entry in of(cache, "damaged")] == [found[0].path]


def test_what_is_removed_is_made_again(cache):
    path = cache.path("models", {"name": "old"})
    removed, kept = remove(e for e in entries_in(cache.root) if e.path == path)
    assert [entry.path for entry in removed] == [path]
    assert kept == []
    assert not path.exists()
    assert not list(path.parent.glob(f".{path.name}*"))
    cache.entry("models", {"name": "old"}, lambda folder: (folder / "w").touch())
    assert cache.has("models", {"name": "old"})


@pytest.mark.parametrize("state", ["whole", "unfinished"])
def test_what_a_program_is_building_or_asking_is_kept(cache, state):
    chosen = of(cache, state)
    locks = {
        "models": lambda path: path.with_suffix(".lock"),
        "answers": lambda path: path / "answers.lock",
    }
    held = [FileLock(locks[entry.kind](entry.path)) for entry in chosen]
    for lock in held:
        lock.acquire()
    try:
        removed, kept = remove(chosen)
    finally:
        for lock in held:
            lock.release()
    assert removed == []
    assert kept == chosen
    assert all(entry.path.exists() for entry in chosen)


def test_a_removal_that_is_killed_leaves_nothing_that_looks_whole(cache, monkeypatch):
    path = cache.path("models", {"name": "new"})

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("loku_exp.cache.entries.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(e for e in entries_in(cache.root) if e.path == path)
    assert not path.exists()
    assert not cache.has("models", {"name": "new"})
    monkeypatch.undo()
    assert len(of(cache, "unfinished")) == 2  # what is left of it is found, and can be removed
    assert remove(of(cache, "unfinished"))[1] == []
    assert of(cache, "unfinished") == []


def test_what_is_left_of_something_damaged_is_found_too(cache, monkeypatch):
    path = cache.path("models", {"name": "new"})
    damaged = path.rename(path.with_name(f"damaged-{path.name}-1234"))

    def killed(_):
        raise KeyboardInterrupt

    for state in ("damaged", "unfinished"):  # killed twice
        monkeypatch.setattr("loku_exp.cache.entries.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(e for e in of(cache, state) if path.name in str(e.path))
        monkeypatch.undo()
        assert not damaged.exists()
    (left,) = [entry for entry in of(cache, "unfinished") if path.name in str(entry.path)]
    with FileLock(path.with_suffix(".lock")):
        assert remove([left]) == ([], [left])
    assert remove([left]) == ([left], [])
    assert not [file for file in path.parent.glob(f"*{path.name}*") if file.suffix != ".lock"]


def test_what_a_killed_removal_left_does_not_hold_up_the_next(cache, monkeypatch):
    path = cache.path("models", {"name": "new"})
    chosen = [entry for entry in entries_in(cache.root) if entry.path == path]

    def killed(_):
        raise KeyboardInterrupt

    for _ in range(2):  # the second time it is made in between, by a run that was beside
        monkeypatch.setattr("loku_exp.cache.entries.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(chosen)
        monkeypatch.undo()
        assert not path.exists()
        aside = next(path.parent.glob(f".{path.name}*"))
        shutil.copytree(aside, path)
    assert remove(chosen) == (chosen, [])


def test_what_goes_while_it_is_listed_is_left_out(cache, monkeypatch):
    gone = cache.path("models", {"name": "new"})
    rglob = type(gone).rglob

    def renamed(path, pattern):
        if path == gone:
            gone.rename(gone.with_name("elsewhere"))
        return rglob(path, pattern)

    monkeypatch.setattr(type(gone), "rglob", renamed)
    assert gone not in {entry.path for entry in entries_in(cache.root)}


def test_what_a_wrong_clock_wrote_is_listed(cache, capsys):
    for file in cache.path("models", {"name": "old"}).rglob("*"):
        os.utime(file, (time.time() + 86400,) * 2)
    main(["--cache-dir", str(cache.root), "--kind", "models"])
    assert f"models/{cache.path('models', {'name': 'old'}).name}" in capsys.readouterr().out


def test_the_command_lists_by_kind_and_age_and_removes_only_where_asked(cache, capsys):
    old = cache.path("models", {"name": "old"})
    month = time.time() - 31 * 86400
    for file in old.rglob("*"):
        os.utime(file, (month, month))
    chosen = ["--cache-dir", str(cache.root), "--kind", "models", "--days", "30"]
    main(chosen)
    said = capsys.readouterr().out
    assert f"models/{old.name}" in said
    assert said.count("31.0 days") == 1
    assert "--prune removes it" in said
    assert old.exists()
    main([*chosen, "--prune"])
    assert "removed: 1, " in capsys.readouterr().out
    assert not old.exists()
    assert cache.has("models", {"name": "new"})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "modles"], "there are answers, models"),
        (["--days", "-1"], "must be at least 0"),
        (["--cache-dir", "/nowhere"], "there is no cache yet"),
    ],
)
def test_what_cannot_be_is_said(cache, capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        main(["--cache-dir", str(cache.root), *arguments])
    assert ended.value.code == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000, "2.5 MB")]
)
def test_sizes_in_words(size, words):
    assert size_in_words(size) == words


def test_what_is_somebody_elses_is_neither_listed_nor_removed(cache):
    for place in ("hub/models--owner--name", "Documents/thesis"):
        (cache.root / place).mkdir(parents=True)
        (cache.root / place / "t.tex").write_text("years")
    assert {entry.path.parent.name for entry in entries_in(cache.root)} == {"models", "answers"}
