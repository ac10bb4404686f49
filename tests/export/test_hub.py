"""What is put on the hub, and what is said where it cannot be."""

from typing import ClassVar

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from loku_exp.errors import UserError
from loku_exp.export.hub import check_name, push


class NoConnectionError(Exception):
    """As that of the client's network library, which is no OSError."""


class Response:
    request = None

    def __init__(self, status):
        self.status_code = status
        self.headers = {}


class Api:
    """Stands for the hub: remembers what it was sent, or answers with an error."""

    sent: ClassVar[list] = []
    error = upload_error = None

    def create_repo(self, name, **options):
        if self.error:
            raise self.error
        self.sent.append((name, options))
        return f"https://hub/{name}"

    def upload_folder(self, **options):
        if self.upload_error:
            raise self.upload_error
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


@pytest.mark.parametrize(("base", "notes"), [("/somewhere/target", 1), ("me/target", 0)])
def test_a_base_that_nobody_else_has_is_said(exported, base, notes):
    (exported / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}"}}')
    lines = push(exported, "me/adapter", private=True)
    said = [line for line in lines if line.startswith(f"note: the adapter's base is {base}, on")]
    assert len(said) == notes


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


@pytest.mark.parametrize(
    "error", [OSError("no such service"), NoConnectionError("no such service")]
)
def test_a_hub_out_of_reach_is_one_line(exported, monkeypatch, error):
    monkeypatch.setattr(Api, "error", error)
    said = r"the hub cannot be reached \(no such service\)\. The export itself is whole"
    with pytest.raises(UserError, match=said):
        push(exported, "me/adapter", private=True)


def test_files_that_did_not_arrive_are_told_with_how_to_send_them(exported, monkeypatch):
    """The repository is made by then, so the same command would be refused."""
    monkeypatch.setattr(Api, "upload_error", ValueError("Invalid metadata in README.md. - 'x'"))
    with pytest.raises(UserError, match=r"Invalid metadata .* hf upload me/adapter ") as refused:
        push(exported, "me/adapter", private=True)
    assert str(refused.value).endswith(str(exported))


@pytest.mark.parametrize("name", ["adapter", "me/a/b", "me/", "me/a b"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(name):
    with pytest.raises(UserError, match="must be OWNER/NAME"):
        check_name(name)


@pytest.mark.parametrize("name", ["me/..", "../x", "me/a--b", "me/-a", "me/a.", "me/a.git", "mü/a"])
def test_a_name_that_the_hub_does_not_take_likewise(name):
    with pytest.raises(UserError, match=f"^--push {name}: .*(epo|OWNER)"):
        check_name(name)
