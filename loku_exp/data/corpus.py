"""What every dataset offers before it becomes records: its texts, their identity, their encoding."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from loku_exp.data.records import Records
from loku_exp.runtime.settings import Template

if TYPE_CHECKING:  # the configuration is checked before anything heavy is imported
    from transformers import PreTrainedTokenizerBase

Role = Literal["target", "reference"]


@runtime_checkable
class Corpus(Protocol):
    """A dataset as text. Any object with these members is one."""

    protocol: dict[str, Any]
    """What a result must say about the data: splits, draws, lengths."""

    @property
    def described(self) -> list[str]:
        """The same for people, a few words each."""

    def digest(self) -> str:
        """Return the identity of everything in it: the same texts anywhere have the same."""

    def training_digest(self, role: Role) -> str:
        """Return the identity of what a target or a reference is trained on."""

    def texts(self, template: Template) -> list[str]:
        """Return the training texts, for a tokenizer that is trained on them."""

    def records(
        self, tokenizer: "PreTrainedTokenizerBase", template: Template, max_length: int
    ) -> Records:
        """Encode everything for a model with this tokenizer, prompt and context length."""


def digest_of_rows(rows: Iterable[object]) -> str:
    """Return 16 hex digits over rows (dataclasses or plain data) in order."""
    digest = hashlib.sha256()
    for row in rows:
        content = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
        digest.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]
