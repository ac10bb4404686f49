"""What names a folder, and what can only be meant for one."""

import pytest

from loku_exp.runtime.hub import expanded, is_local, looks_like_a_path


def test_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    assert is_local("~/data")
    assert is_local(str(tmp_path / "data"))
    assert expanded("~/data") == str(tmp_path / "data")
    assert expanded("owner/name") == "owner/name"


@pytest.mark.parametrize("path", ["~nobody/data", "/" + "x" * 300, "./a\0b"])
def test_names_that_can_be_no_folder(path):
    assert not is_local(path)
    assert expanded(path) == path
    assert looks_like_a_path(path)


def test_a_relative_folder_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    assert expanded("m") == str(tmp_path / "m")
