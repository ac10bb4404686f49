"""What is put on the hub, and what is said where it cannot be."""

from typing import ClassVar

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from loku_exp.errors import UserError
from loku_exp.export.hub import check_name, push


class Response:
    request = None

    def __init__(self, status):
        self.status_code = status
        self.headers = {}


class Api:
    """Stands for the hub: remembers what it was sent, or answers with an error."""

    sent: ClassVar[list] = []
    error = None

    def create_repo(self, name, **options):
        if self.error:
            raise self.error
        self.sent.append((name, options))
        return f"https://hub/{name}"

    def upload_folder(self, **options):
        self.sent.append(options)


@pytest.fixture
def exported(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("card")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x" * 2500)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    monkeypatch.setattr(Api, "sent", [])
    return tmp_path


def test_a_folder_becomes_a_new_private_repository(exported):
    lines = push(exported, "me/adapter", private=True)
    created, uploaded = Api.sent
    assert created == ("me/adapter", {"private": True, "exist_ok": False})
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/adapter", str(exported))
    assert lines[0] == "on the hub, private: https://hub/me/adapter"
    assert "secret" not in "\n".join(lines)


def test_without_a_login_every_file_is_shown_and_nothing_is_sent(exported, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    lines = push(exported, "me/adapter", private=True)
    assert Api.sent == []
    assert "nothing was sent to me/adapter" in lines[0]
    assert [line.split() for line in lines[1:]] == [
        ["4", "bytes", "README.md"],
        ["2.5", "kB", "adapter_model.safetensors"],
    ]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (409, "there is such a repository already"),
        (403, "may not write there"),
        (401, "not accepted"),
    ],
)
def test_what_the_hub_refuses_is_one_line(exported, monkeypatch, status, says):
    monkeypatch.setattr(Api, "error", HfHubHTTPError("long words", response=Response(status)))
    with pytest.raises(UserError, match=says):
        push(exported, "me/adapter", private=True)
    assert Api.sent == []


def test_a_hub_out_of_reach_is_one_line(exported, monkeypatch):
    monkeypatch.setattr(Api, "error", OSError("Name or service not known"))
    with pytest.raises(UserError, match=r"the hub cannot be reached .*; the export is whole"):
        push(exported, "me/adapter", private=True)


@pytest.mark.parametrize("name", ["adapter", "me/a/b", "me/", "me/..", "../x", "me/a b"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(name):
    with pytest.raises(UserError, match="must be OWNER/NAME"):
        check_name(name)
