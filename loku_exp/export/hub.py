"""Putting an exported folder on the model hub; without a login, what would be put there."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loku_exp.errors import UserError
from loku_exp.runtime.sizes import size_in_words

NAME = re.compile(r"[\w.-]+/[\w.-]{1,96}")


def check_name(name: str) -> None:
    """Check that a name can be one of a repository.

    Raises:
        UserError: it is not OWNER/NAME, or not as the hub wants it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not NAME.fullmatch(name):
        raise UserError(f"--push {name}: must be OWNER/NAME, of letters, digits, '-', '_' and '.'")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push {name}: {' '.join(str(error).split())}") from error


def push(folder: Path, name: str, *, private: bool) -> list[str]:
    """Make a new repository of a folder, and return what was done, a line each.

    Without a login nothing is sent: the lines say what would be.

    Args:
        folder: as it was exported.
        name: ``OWNER/NAME``.
        private: whether only its owner sees it.

    Raises:
        UserError: the name is taken, the owner is another one, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [f"  {size_in_words(f.stat().st_size):>10}  {f.relative_to(folder)}" for f in files]
    listed += _of_this_machine(folder / "adapter_config.json")
    if get_token() is None:
        return [
            f"nothing was sent to {name}, for there is no login (hf auth login, or HF_TOKEN); it would be:",
            *listed,
        ]
    api = HfApi()
    with _told(name, f"the export itself is whole: {folder}"):
        url = api.create_repo(name, private=private, exist_ok=False)
    again = f"the repository is there, without the files; send them: hf upload {name} {folder}"
    with _told(name, again):
        api.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="Unlearned by loku_exp"
        )
    return [f"on the hub, {'private' if private else 'public'}: {url}", *listed]


def _of_this_machine(config: Path) -> list[str]:
    """Return a line where an adapter's base is a folder here, which nobody else can load."""
    base = ""
    if config.is_file():
        base = str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])
    if not Path(base).is_absolute():
        return []
    return [f"note: the adapter's base is {base}, on this machine alone; --base NAME names another"]


@contextmanager
def _told(name: str, left: str) -> Iterator[None]:
    """Say what the hub refuses, or that it cannot be reached, in a line, with what there is now."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except Exception as error:  # of the hub, of the card, of whatever network library it has
        said = " ".join(str(error).split())[:200] or type(error).__name__
        status = getattr(getattr(error, "response", None), "status_code", 0)
        reason = {
            401: "the login is not accepted (hf auth login)",
            403: "this login may not write there; take an owner that is yours",
            409: "there is such a repository already; take another name, nothing of it was changed",
        }.get(status, said)
        if not isinstance(error, HfHubHTTPError | ValueError):
            reason = f"the hub cannot be reached ({said})"
        raise UserError(f"--push {name}: {reason}. {left[0].upper()}{left[1:]}") from error
