"""Which tensors a checkpoint lacks, has too many of, or has in another shape: judged, and said by name."""

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

SHOWN = 3  # names in a message
# Saved by older versions of transformers, computed by newer ones: masks and rotary angles.
BUFFERS = re.compile(
    r"(attn|attention)(\.attention)?\.(bias|masked_bias)$|rotary_emb\.(inv_freq|cos_cached|sin_cached)$"
    r"|(^|\.)position_ids$"
)


def tensor_problems(info: dict[str, Any]) -> list[str]:
    """Return what does not fit, one line each without a name in front; tied heads count as there.

    Args:
        info: what transformers found: ``missing_keys``, ``unexpected_keys``, ``mismatched_keys`` (name,
            shape in the checkpoint, shape in the model).
    """
    missing = sorted(info["missing_keys"])
    unexpected = sorted(name for name in info["unexpected_keys"] if not BUFFERS.search(name))
    found = []
    wrapped = _prefix(missing, unexpected)
    if wrapped:
        return [
            f"every tensor's name begins with '{wrapped}', as if saved from within a wrapper "
            f"({unexpected[0]}); save the model inside it"
        ]
    if any(".lora_" in name for name in unexpected):
        found.append(
            "it holds an adapter that was not merged; merge it first (peft: merge_and_unload, "
            "save_pretrained)"
        )
    if missing:
        found.append(
            f"{_counted(missing)} of the architecture in config.json missing: {_some(missing)}; they would "
            "be random. Copy or save the model again, with the config.json it was trained with"
        )
    if unexpected:
        found.append(
            f"{_counted(unexpected)} in the weights that the architecture in config.json has no place for: "
            f"{_some(unexpected)}; give the config.json they were trained with, or take them out"
        )
    for name, there, wanted in sorted(info["mismatched_keys"]):
        found.append(
            f"tensor {name} has shape {tuple(there)}, the architecture in config.json wants "
            f"{tuple(wanted)}; give the config.json it was trained with"
        )
    return found


@contextmanager
def without_load_report() -> Iterator[None]:
    """Keep transformers from logging its table of missing tensors, which is said in a line here."""

    def wanted(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def _prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """Return what was put before every name, if all that is wrong is that."""
    if not missing or not unexpected:
        return None
    for name in missing:
        if unexpected[0].endswith(f".{name}"):
            prefix = unexpected[0].removesuffix(name)
            return prefix if all(other.startswith(prefix) for other in unexpected) else None
    return None


def _counted(names: Collection[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
