"""Putting an exported folder on the model hub; without a login, what would be put there."""

import re
from pathlib import Path

from loku_exp.errors import UserError
from loku_exp.runtime.sizes import size_in_words

NAME = re.compile(r"[\w.-]+/[\w.-]{1,96}")


def check_name(name: str) -> None:
    """Check that a name can be one of a repository.

    Raises:
        UserError: it is not OWNER/NAME.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise UserError(f"--push {name}: must be OWNER/NAME, of letters, digits, '-', '_' and '.'")


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
    from huggingface_hub.errors import HfHubHTTPError

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [f"  {size_in_words(f.stat().st_size):>10}  {f.relative_to(folder)}" for f in files]
    if get_token() is None:
        return [
            f"nothing was sent to {name}, for there is no login (hf auth login, or HF_TOKEN); it would be:",
            *listed,
        ]
    api = HfApi()
    try:
        url = api.create_repo(name, private=private, exist_ok=False)
        api.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="Unlearned by loku_exp"
        )
    except HfHubHTTPError as error:
        status = int(getattr(error.response, "status_code", 0))
        reason = {
            401: "the login is not accepted (hf auth login)",
            403: "this login may not write there; take an owner that is yours",
            409: "there is such a repository already; take another name, nothing of it was changed",
        }.get(status, " ".join(str(error).split())[:200])
        raise UserError(f"--push {name}: {reason}. The export itself is whole: {folder}") from error
    except OSError as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"--push {name}: the hub cannot be reached ({said}); the export is whole: {folder}"
        ) from error
    return [f"on the hub, {'private' if private else 'public'}: {url}", *listed]
