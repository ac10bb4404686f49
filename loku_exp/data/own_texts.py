"""Texts of the user's own: some to forget, some to keep, and perhaps some that no model here has seen.

The target is the model as it stands, unless one is trained here. Without a holdout there are no thresholds,
so nothing says whether a text is as hard to extract as one never seen.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loku_exp.data.corpus import Role, digest_of_rows
from loku_exp.data.overlap import overlaps
from loku_exp.data.records import Example, Records, Sequence
from loku_exp.data.text import Text
from loku_exp.data.text_files import SUFFIXES, read_texts
from loku_exp.data.tokens import plain_ids
from loku_exp.errors import DataError
from loku_exp.runtime.knobs import Count
from loku_exp.runtime.settings import Template

if TYPE_CHECKING:  # the configuration is checked before anything heavy is imported
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
SHOWN = 5  # row numbers in a message


def load_texts(
    *,
    forget: str | None = None,
    retain: str | None = None,
    holdout: str | None = None,
    column: str = "text",
    length: Count = 200,
    evaluated: Count = 64,
    overlap: Literal["error", "drop"] = "error",
) -> "OwnTexts":
    """Load texts from files (jsonl, json, csv, parquet; txt: a text a paragraph) or hub datasets.

    Args:
        forget: what is to be forgotten; a file, ``owner/name`` or ``owner/name:configuration``.
        retain: what is to be kept, likewise.
        holdout: texts like the forget set that the model has never seen, likewise; None for none.
        column: that holds the texts.
        length: tokens; longer texts are cut.
        evaluated: texts of retain set and holdout that are evaluated, the first ones.
        overlap: of texts that share a passage with a set before theirs: an ``error``, or they are dropped.

    Raises:
        DataError: something cannot be read, or overlaps.
    """
    if wrong := problems(forget=forget, retain=retain):
        raise DataError("\n".join(wrong))
    sources = {"forget": forget, "retain": retain, "holdout": holdout}
    if column != "text" and all(str(s).lower().endswith(".txt") for s in sources.values() if s):
        raise DataError(f"dataset.column={column}: txt files have no columns; leave it out")
    sets = dict[str, list[Text]]()
    for name, source in sources.items():
        texts = read_texts(source, column, "dataset.column") if source else []
        sets[name] = [replace(text, group=name) for text in texts]  # a file's name is no content
        _say_twice(name, sets[name])
    for name, other in (("retain", "forget"), ("holdout", "forget"), ("holdout", "retain")):
        sets[name] = _apart(name, sets[name], other, sets[other], overlap)
    return OwnTexts(**sets, length=length, evaluated=evaluated)


@dataclass(frozen=True)
class OwnTexts:
    """Texts to forget, to keep, and never seen.

    Attributes:
        forget: the forget set.
        retain: the retain set.
        holdout: never seen by the model; empty where there are none.
        length: tokens of a text at most.
        evaluated: texts of retain set and holdout that are evaluated.
    """

    forget: list[Text]
    retain: list[Text]
    holdout: list[Text]
    length: int
    evaluated: int

    @property
    def protocol(self) -> dict[str, object]:
        """See `Corpus`."""
        sizes = {name: len(texts) for name, texts in self._sets.items()}
        forget = f"{len(self.forget)} own texts"
        return {"forget_split": forget, "texts": sizes, "length": self.length}

    @property
    def described(self) -> list[str]:
        """See `Corpus`."""
        told = {"forget": self.forget, "keep": self.retain, "compare with": self.holdout}
        sizes = [f"{len(texts)} to {what}" for what, texts in told.items() if texts]
        return [f"own texts of at most {self.length} tokens, {', '.join(sizes)}"]

    @property
    def _sets(self) -> dict[str, list[Text]]:
        return {"forget": self.forget, "retain": self.retain, "holdout": self.holdout}

    def digest(self) -> str:
        """See `Corpus`."""
        parts = [part for name, texts in self._sets.items() for part in (name, *texts)]
        return digest_of_rows([[self.length, self.evaluated], *parts])

    def training_digest(self, role: Role) -> str:
        """See `Corpus`."""
        rows = [*(self.forget if role == "target" else []), *self.retain]
        return digest_of_rows([self.length, *rows])

    def texts(self, template: Template) -> list[str]:
        """See `Corpus`; a template is not used."""
        return [text.text or "" for text in [*self.forget, *self.retain]]

    def records(
        self, tokenizer: "PreTrainedTokenizerBase", template: Template, max_length: int
    ) -> Records:
        """Encode: texts cut to `length`, every token labelled.

        Raises:
            DataError: the length exceeds the context, or a text has one token only.
        """
        if self.length > max_length:
            raise DataError(
                f"dataset.length={self.length} exceeds the model's context of {max_length} tokens"
            )
        forget, retain, holdout = (
            _cut(name, texts, tokenizer, self.length) for name, texts in self._sets.items()
        )
        evaluation = {"forget": forget, "retain": retain[: self.evaluated]}
        if holdout:
            evaluation["unseen"] = holdout[: self.evaluated]
        return Records(
            target_training=[*forget, *retain],
            reference_training=retain,
            forget=forget,
            retain=retain,
            evaluation=evaluation,
        )


def _cut(
    name: str, texts: list[Text], tokenizer: "PreTrainedTokenizerBase", length: int
) -> list[Example]:
    """Return texts as examples, and say which are cut.

    Raises:
        DataError: some have one token only, so nothing can be predicted.
    """
    found, cut, short = [], [], []
    for text in texts:
        ids = tuple(plain_ids(tokenizer, text.text or ""))
        short += [text.row] if len(ids) < 2 else []
        cut += [text.row] if len(ids) > length else []
        kept = ids[:length]
        found.append(Example(text.row, text.group, name, prompt=kept, answer=Sequence(kept, kept)))
    if short:
        raise DataError(
            f"dataset.{name}: {_rows(short)} one token; a text needs at least 2, give longer ones"
        )
    if cut:
        log.warning(
            "dataset.%s: %s more than dataset.length=%d tokens, which is where they are cut",
            name, _rows(cut), length,
        )  # fmt: skip
    return found


def _say_twice(name: str, texts: list[Text]) -> None:
    """Say which texts stand in a set more than once; they count as often as they stand there."""
    counts = Counter(text.text for text in texts)
    twice = [text.row for text in texts if counts[text.text] > 1]
    if twice:
        log.warning("dataset.%s: %s the text of another row", name, _rows(twice))


def _apart(
    name: str, texts: list[Text], other: str, others: list[Text], overlap: str
) -> list[Text]:
    """Return the texts of a set that share no passage with another set.

    Raises:
        DataError: some do, or nothing is left.
    """
    shared = overlaps(texts, others) if texts else {}
    if not shared:
        return texts
    pairs = ", ".join(f"{ours} ({other} row {row})" for ours, row in [*shared.items()][:SHOWN])
    pairs += ", ..." * (len(shared) > SHOWN)
    if overlap == "error":
        raise DataError(
            f"dataset.{name}: {len(shared)} texts share a passage with the {other} set: row {pairs}; "
            "remove them, or set dataset.overlap=drop"
        )
    kept = [text for text in texts if text.row not in shared]
    if not kept:
        raise DataError(
            f"dataset.{name}: all texts share a passage with the {other} set; give others"
        )
    log.warning("dataset.%s: %d dropped for a shared passage: row %s", name, len(shared), pairs)
    return kept


def _rows(rows: list[int]) -> str:
    shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
    return f"row {shown} has" if len(rows) == 1 else f"{len(rows)} rows ({shown}) have"


def problems(
    *,
    forget: str | None = None,
    retain: str | None = None,
    holdout: str | None = None,
    **_: object,
) -> list[str]:
    """Return what is missing, without reading anything."""
    given = {"forget": forget, "retain": retain}
    unset = [
        f"dataset.{name} is not set; give a jsonl, csv, parquet or txt file: dataset.{name}=FILE"
        for name, value in given.items()
        if value is None
    ]
    return unset + absent(given | {"holdout": holdout})


def absent(sources: Mapping[str, str | None]) -> list[str]:
    """Return which of these sources are files that are not there, without reading any.

    Args:
        sources: by the key of the dataset they stand at.
    """
    return [
        f"dataset.{key}={source}: no such file"
        for key, source in sources.items()
        if source
        and Path(source).suffix.lower() in (*SUFFIXES, ".txt")
        and not os.path.exists(os.path.expanduser(source))
    ]
