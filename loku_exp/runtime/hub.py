"""Whether the model hub can be reached, asked once and only when something must come from it."""

import logging
import os
import socket
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

log = logging.getLogger(__name__)
TIMEOUT_SECONDS = 3
LONGEST_REASON = 200  # characters of a library's own words


def is_local(path: str) -> bool:
    """Return whether a path names an existing folder rather than a hub id."""
    return os.path.isdir(os.path.expanduser(path))


def looks_like_a_path(path: str) -> bool:
    """Return whether a string can only mean a folder, not a hub id like owner/name."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1


def is_offline() -> bool:
    """Return whether hub libraries are told to use the files of this machine alone; by 0 they are not."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def use_cached_files_if_unreachable(paths: list[str | None]) -> None:
    """Switch the hub libraries to their local cache where the hub cannot be reached.

    Without this each of them retries for half a minute. To be called before they are imported.

    Args:
        paths: folders and hub ids the run will read; the network is touched only for hub ids.
    """
    endpoint = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxied = getproxies().keys() & {endpoint.scheme, "all"}
    wanted = [path for path in paths if path and not is_local(path) and not looks_like_a_path(path)]
    if not wanted or proxied or is_offline():
        return
    address = (endpoint.hostname or "", endpoint.port or (80 if endpoint.scheme == "http" else 443))
    try:
        socket.create_connection(address, timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        log.info("the hub cannot be reached (%s); only files on this machine are used", error)
        os.environ["HF_HUB_OFFLINE"] = "1"


def expanded(path: str) -> str:
    """Return a folder as it is found from anywhere; a hub id as it is."""
    return str(Path(os.path.expanduser(path)).absolute()) if is_local(path) else path


def cannot_load(key: str, path: str, error: Exception) -> str:
    """Return what to tell a user whose model or tokenizer cannot be loaded, and the ways out.

    Args:
        key: where the path stands in the configuration, e.g. ``target.path``.
        path: folder or hub id.
        error: what the library said.
    """
    if looks_like_a_path(path) and not is_local(path):
        return f"{key}={path}: no such folder"
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if "trust_remote_code" in said:
        return (
            f"{key}={path} brings code of its own, which runs only where you ask for it; if you trust its "
            "source, set model.trust_remote_code=true"
        )
    reason = said if len(said) <= LONGEST_REASON else said[:LONGEST_REASON] + "..."
    if is_local(path):
        return (
            f"cannot load {key}={path} ({reason}); the folder must be whole and laid out like the hub's "
            "(config.json, model.safetensors, tokenizer.json)"
        )
    folder = "model.path" if key == "model.tokenizer" else key
    others = {
        "target.path": "have it fine-tuned here: target.path=null",
        "reference.path": "have it fine-tuned here: reference.source=train reference.path=null",
    }
    other = others.get(
        key,
        "use the untrained architecture for timing: model.weights=random model.tokenizer=DIR",
    )
    return (
        f"cannot load {key}={path} ({reason}). Without a hub, give a folder laid out like the hub's "
        f"(config.json, model.safetensors, tokenizer.json): {folder}=DIR; or {other}"
    )
