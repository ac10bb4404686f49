"""Corpora of plain texts to forget, and their encoding: cut or packed to one length, all labelled."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from loku_exp.data.corpus import Role, digest_of_rows
from loku_exp.data.records import Example, Records, Sequence
from loku_exp.data.tokens import plain_ids
from loku_exp.errors import DataError
from loku_exp.runtime.cache import digest
from loku_exp.runtime.settings import Template

if TYPE_CHECKING:  # the configuration is checked before anything heavy is imported
    from transformers import PreTrainedTokenizerBase

GPT2_TOKENS = 50_257
GPT2_TOKEN_MAP = "0b400a7fbc868d25"  # digest of its id -> token map
PERPLEXITY_TOKENS = 512  # texts of perplexities are cut there (predecessor)


@dataclass(frozen=True)
class Text:
    """One text.

    Attributes:
        row: its number where it comes from.
        group: what texts hang together, e.g. the part of The Pile.
        text: None where only `ids` are known.
        ids: GPT-2 token ids that stand for the text exactly, or None to tokenise it.
    """

    row: int
    group: str
    text: str | None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TextCorpus:
    """Texts to forget, and what else a model is trained and judged on.

    Attributes:
        length: tokens per sequence; longer texts are cut, corpora are packed to it.
        forget: the forget set.
        siblings: memorised as the forget set is, and not in it; evaluated as ``sibling``.
        retain: the retain set of unlearning, packed.
        held_out: of the same corpus, never trained on; packed and evaluated as ``retain``.
        unseen: never trained on; what thresholds are measured on.
        memorised_retain: memorised as the forget set is, and part of the retain set; not evaluated.
        perplexity: further texts by name; their perplexity is reported.
        in_domain: those of `perplexity` whose corpus is also trained on.
        repeats: how often a model trained here sees each text of `forget` and `siblings` an epoch.
        count_padding: pad short texts with end-of-text and count it in MA and EL (the predecessor).
        evaluated: packed sequences of `held_out` that are evaluated.
        exact: use the ids of texts that have them, not a tokenisation of the text.
        protocol: what a result must say about the data.
    """

    length: int
    forget: list[Text]
    siblings: list[Text]
    retain: list[Text]
    held_out: list[Text]
    unseen: list[Text]
    protocol: dict[str, object]
    memorised_retain: list[Text] = field(default_factory=list)
    perplexity: dict[str, list[Text]] = field(default_factory=dict)
    in_domain: frozenset[str] = frozenset()
    repeats: int = 1
    count_padding: bool = False
    evaluated: int = 32
    exact: bool = False

    @property
    def described(self) -> list[str]:
        """See `Corpus`."""
        known = self.protocol
        found = [f"forget set {known['forget_split']} as {known['source']} of {self.length} tokens"]
        return [*found, f"retain corpus {known['retain_corpus']}"]

    @property
    def kept(self) -> list[Text]:
        """The memorised texts that are not to be forgotten."""
        return [*self.siblings, *self.memorised_retain]

    def digest(self) -> str:
        """See `Corpus`."""
        sets = {
            "forget": self.forget,
            "siblings": self.siblings,
            "retain": self.retain,
            "held_out": self.held_out,
            "unseen": self.unseen,
            "memorised_retain": self.memorised_retain,
            **self.perplexity,
        }
        shape = [self.length, self.repeats, self.count_padding, self.evaluated, self.exact]
        rows: list[object] = [shape, sorted(self.in_domain)]
        for name, texts in sets.items():
            rows += [name, *texts]
        return digest_of_rows(rows)

    def training_digest(self, role: Role) -> str:
        """See `Corpus`."""
        memorised = [*(self.forget if role == "target" else []), *self.kept]
        shape = [self.length, self.repeats, self.exact]
        return digest_of_rows([shape, *memorised, "retain", *self.retain])

    def texts(self, template: Template) -> list[str]:
        """See `Corpus`; a template is not used.

        Raises:
            DataError: only ids are known.
        """
        rows = [*self.forget, *self.kept, *self.retain]
        texts = [row.text for row in rows if row.text is not None]
        if len(texts) < len(rows):
            raise DataError(
                "rows of the benchmark arrays have token ids only, and this model's tokenizer would have "
                "to be trained on their text; use a published forget set (dataset.forget_set=0) or a "
                "model with GPT-2's tokenizer"
            )
        return texts

    def records(
        self, tokenizer: "PreTrainedTokenizerBase", template: Template, max_length: int
    ) -> Records:
        """Encode: texts cut to `length`, corpora packed to it, every token labelled.

        Raises:
            DataError: the length exceeds the context, the tokenizer does not fit ids, or the retain
                corpus does not fill one sequence.
        """
        if self.length > max_length:
            raise DataError(
                f"dataset.length={self.length} exceeds the model's context of {max_length} tokens"
            )
        if any(row.ids is not None for row in [*self.forget, *self.kept, *self.retain]):
            check_gpt2(tokenizer)
        ids_of = partial(_ids, tokenizer=tokenizer, exact=self.exact)
        eos = int(tokenizer.eos_token_id)

        def cut(rows: list[Text], role: str, length: int = self.length) -> list[Example]:
            return [_record(row.row, row.group, role, ids_of(row)[:length]) for row in rows]

        def evaluated(rows: list[Text], role: str) -> list[Example]:
            records = cut(rows, role)
            return (
                [_padded(r, self.length, eos) for r in records] if self.count_padding else records
            )

        forget, kept = cut(self.forget, "forget"), cut(self.kept, "kept")
        retain = pack([ids_of(row) for row in self.retain], "retain", self.length, eos)
        held_out = pack(
            [ids_of(row) for row in self.held_out], "evaluated retain", self.length, eos
        )
        evaluation = {
            "forget": evaluated(self.forget, "forget"),
            "sibling": evaluated(self.siblings, "sibling"),
            "retain": held_out[: self.evaluated],
            "unseen": evaluated(self.unseen, "unseen"),
        }
        for name, rows in self.perplexity.items():
            label = f"{name}_in_domain" if name in self.in_domain else name
            evaluation[label] = cut(rows, label, min(PERPLEXITY_TOKENS, max_length))
        return Records(
            target_training=[*(forget + kept) * self.repeats, *retain],
            reference_training=[*kept * self.repeats, *retain],
            forget=forget,
            retain=[*retain, *cut(self.memorised_retain, "retain") * self.repeats],
            evaluation={name: rows for name, rows in evaluation.items() if rows},
        )


def check_gpt2(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Check that ids mean what they mean to GPT-2: the same token strings, not just the same range.

    Raises:
        DataError: they do not.
    """
    if token_map_digest(tokenizer) != GPT2_TOKEN_MAP:
        raise DataError(
            "the benchmark's token ids are GPT-2's, and this model's tokenizer has other tokens at them; "
            "use dataset.source=text with a published forget set, or a model with GPT-2's tokenizer"
        )


def token_map_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a digest of the id -> token map over the ids GPT-2 has."""
    tokens = {index: token for token, index in tokenizer.get_vocab().items() if index < GPT2_TOKENS}
    return digest(sorted(tokens.items()))


def pack(texts: list[tuple[int, ...]], role: str, length: int, eos: int) -> list[Example]:
    """Join texts with end-of-text after each and cut into sequences; a remainder is dropped.

    Args:
        texts: as ids.
        role: of the records.
        length: tokens per sequence.
        eos: id of the end-of-text token.

    Raises:
        DataError: they do not fill one sequence.
    """
    stream = [token for ids in texts for token in (*ids, eos)]
    if texts and len(stream) < length:
        raise DataError(
            f"the {len(texts)} rows of the retain corpus that serve as '{role}' have {len(stream)} tokens, "
            f"less than one sequence of dataset.length={length}; give a larger one: dataset.retain=FILE"
        )
    starts = range(0, len(stream) - length + 1, length)
    return [
        _record(number, "packed", role, tuple(stream[start : start + length]))
        for number, start in enumerate(starts)
    ]


def gpt2_text(ids: tuple[int, ...], tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the text of GPT-2 ids as the published csv files have it: with the space clean-up.

    transformers 5 ignores ``clean_up_tokenization_spaces`` for this tokenizer, so it is called by name.
    """
    return tokenizer.clean_up_tokenization(str(tokenizer.decode(list(ids))))


def _ids(row: Text, tokenizer: "PreTrainedTokenizerBase", exact: bool) -> tuple[int, ...]:
    if exact and row.ids is not None:
        return row.ids
    text = row.text if row.text is not None else gpt2_text(row.ids or (), tokenizer)
    return tuple(plain_ids(tokenizer, text))


def _record(row: int, group: str, role: str, ids: tuple[int, ...]) -> Example:
    """Return a sequence with every token labelled.

    Raises:
        DataError: it has fewer than two tokens, so nothing can be predicted.
    """
    if len(ids) < 2:
        raise DataError(f"row {row} of '{role}' has {len(ids)} tokens; at least 2 are needed")
    return Example(row, group, role, prompt=ids, answer=Sequence(ids, ids))


def _padded(record: Example, length: int, eos: int) -> Example:
    ids = record.prompt + (eos,) * (length - len(record.prompt))
    return replace(record, prompt=ids, answer=Sequence(ids, ids))
