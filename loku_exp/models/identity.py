"""What a run is made of, by content: weights, tokenizers, and code of the user's own."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoConfig, PreTrainedTokenizerBase

from loku_exp.errors import ModelError
from loku_exp.runtime.cache import digest, file_digest, folder_digest
from loku_exp.runtime.hub import cannot_load, is_local

if TYPE_CHECKING:
    from loku_exp.runtime.settings import ModelSettings

WEIGHTS = ("*.safetensors", "*.bin")
NOT_READ = (".*", "*.md", "LICENSE*")  # of git, of the hub's client (with times in it), for people
PROBE = "What is 17, and why?"


def weights_digest(path: str, key: str, model: "ModelSettings") -> str:
    """Return the identity of weights: of a folder its content, of a hub id its commit if known.

    Of a folder counts what a loader may read: not its card, nor hidden files, which no two downloads share.

    Args:
        path: folder or hub id.
        key: where it stands in the configuration, for errors.
        model: its revision belongs to its own path; says whether remote code is run.

    Raises:
        ModelError: there is no model, or the hub cannot be reached.
    """
    if is_local(path):
        folder = Path(path).expanduser()
        check_folder(folder, key)
        return folder_digest(folder, without=NOT_READ)
    revision = model.revision if path == model.path else None
    try:
        config = AutoConfig.from_pretrained(
            path, revision=revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(cannot_load(key, path, error)) from error
    return f"{path}@{getattr(config, '_commit_hash', None) or revision}"


def check_weights(path: str, key: str) -> None:
    """Check that a folder holds weights; a hub id is left to the hub.

    Raises:
        ModelError: it does not.
    """
    if is_local(path) and not weight_files(path):
        folder = Path(path).expanduser()
        check_folder(folder, key)
        raise ModelError(f"cannot load {key}={path}: no weights in it ({' or '.join(WEIGHTS)})")


def weight_files(path: str) -> set[str]:
    """Return the digests of a folder's weight files: equal for a copy, whatever lies beside them."""
    folder = Path(path).expanduser()
    return {file_digest(file) for pattern in WEIGHTS for file in folder.glob(pattern)}


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the identity of a tokenizer: vocabulary, splitting rules, special tokens and their use."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest([rules, special, tokenizer(PROBE).input_ids])


def own_code(targets: list[str]) -> dict[str, str]:
    """Return the digest of the source file of each component that is not part of this package.

    What that file imports does not enter.
    """
    found = {}
    for target in targets:
        module = target.rpartition(".")[0]
        spec = None if module.split(".")[0] == "loku_exp" else importlib.util.find_spec(module)
        if spec is not None and spec.origin and Path(spec.origin).is_file():
            found[target] = file_digest(Path(spec.origin))
    return found


def check_folder(folder: Path, key: str) -> None:
    """Check that a folder is laid out like a model's.

    Raises:
        ModelError: it is an adapter's, or has no configuration.
    """
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{key}={folder} is a PEFT adapter, not a model; merge it into its base first (peft: "
            "merge_and_unload, save_pretrained)"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{key}={folder}: no config.json there; give a folder laid out like the hub's "
            "(config.json, model.safetensors, tokenizer.json)"
        )
