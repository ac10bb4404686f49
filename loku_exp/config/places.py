"""Folders that weights are read from, and that are not there: seen before anything heavy is imported."""

from pathlib import Path
from typing import Any

from loku_exp.runtime.hub import is_local, looks_like_a_path


def place_problems(container: dict[str, Any]) -> list[str]:
    """Return which folders of weights and tokenizers are not there; hub ids are left to the hub.

    Args:
        container: a composed configuration, however wrong the rest of it is.
    """
    model, target, reference = (
        node if isinstance(node := container.get(name), dict) else {}
        for name in ("model", "target", "reference")
    )
    named = {"model.path": model.get("path"), "model.tokenizer": model.get("tokenizer")}
    if model.get("weights") == "random":
        named.pop("model.path")
    else:
        named["target.path"] = target.get("path")
        named["reference.path"] = (
            reference.get("path") if reference.get("source") == "path" else None
        )
    keys: dict[str, str] = {}
    for key, path in named.items():
        if isinstance(path, str) and looks_like_a_path(path) and not is_local(path):
            keys.setdefault(path, key)
    run = target.get("run")
    if isinstance(run, str) and run and not Path(run).expanduser().is_dir():
        keys.setdefault(run, "target.run")
    return [f"{key}={path}: no such folder" for path, key in keys.items()]
