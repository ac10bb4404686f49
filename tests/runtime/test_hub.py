"""What names a folder, and what can only be meant for one."""

import os

import pytest

from loku_exp.runtime import hub
from loku_exp.runtime.hub import expanded, is_local, looks_like_a_path


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ({}, ("huggingface.co", 443)),
        ({"HF_ENDPOINT": "http://mirror"}, ("mirror", 80)),
        ({"HF_ENDPOINT": "http://mirror:8080"}, ("mirror", 8080)),
        ({"all_proxy": "http://proxy"}, None),
        ({"HTTPS_PROXY": "http://proxy"}, None),
        ({"HF_ENDPOINT": "http://mirror", "http_proxy": "http://proxy"}, None),
    ],
)
def test_the_hub_is_asked_where_it_is_and_behind_a_proxy_not_at_all(monkeypatch, named, asked):
    for name in [n for n in os.environ if n.lower().endswith("_proxy") or n.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    calls = []

    def refused(address, timeout):
        calls.append(address)
        raise OSError

    monkeypatch.setattr(hub.socket, "create_connection", refused)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # so that it is put back
    hub.use_cached_files_if_unreachable(["owner/name"])
    assert calls == ([asked] if asked else [])
    assert os.environ["HF_HUB_OFFLINE"] == ("1" if asked else "")


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
