"""A finished run's files are compared with the sums in its mark."""

import json

import pytest

from loku_exp.errors import UserError
from loku_exp.runtime.finished import (
    DONE,
    check_all_unchanged,
    check_unchanged,
    is_done,
    read_mark,
    reopen,
    write_mark,
)
from tests.damage import flip


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.json").write_text('{"a": 1}')
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "run.log").write_text("said\n")
    write_mark(tmp_path, "0123")
    return tmp_path


def test_a_mark_names_the_run_and_sums_of_what_others_read(run):
    mark = json.loads((run / DONE).read_text())
    assert mark["id"] == "0123"
    assert sorted(mark["sha256"]) == ["config.yaml", "metrics.json"]
    check_all_unchanged(run)


def test_a_file_with_one_other_bit_is_named(run):
    flip(run / "metrics.json")
    with pytest.raises(UserError, match=r"metrics\.json is not what was written"):
        check_unchanged(run / "metrics.json", run)
    check_unchanged(run / "config.yaml", run)
    with pytest.raises(UserError, match=r"metrics\.json"):
        check_all_unchanged(run)


def test_a_file_that_is_gone_is_named(run):
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml is gone"):
        check_all_unchanged(run)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": 3}'])
def test_a_damaged_mark_is_named(run, content):
    (run / DONE).write_text(content)
    assert is_done(run)
    with pytest.raises(UserError, match=r"done\.json is damaged"):
        check_unchanged(run / "metrics.json", run)


def test_the_mark_of_an_earlier_version_has_no_sums(run):
    (run / DONE).write_text('{"id": "0123"}\n')
    flip(run / "metrics.json")
    check_all_unchanged(run)


def test_files_of_an_unfinished_run_may_be_anything(run):
    (run / DONE).unlink()
    check_unchanged(run / "metrics.json", run)


def test_a_whole_run_stays_finished_while_its_files_are_written_again(run):
    reopen(run)
    (run / "metrics.json").write_text('{"a": 2}')
    check_all_unchanged(run)
    assert read_mark(run) == {"id": "0123", "sha256": {}, "open": True}
    write_mark(run, "0123")
    assert not read_mark(run)["open"]
    assert read_mark(run)["sha256"]


def test_a_damaged_run_is_finished_no_more_when_it_is_worked_on(run):
    flip(run / "metrics.json")
    reopen(run)
    assert not is_done(run)
    assert [file.read_text() for file in run.glob("damaged-metrics.json-*")] != ['{"a": 1}']
    assert (run / "config.yaml").is_file()
    reopen(run)  # nothing to do
