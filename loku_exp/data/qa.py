"""Question-answer corpora (TOFU and its kin): texts, and their encoding with the official labels."""

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from loku_exp.data.corpus import Role, digest_of_rows
from loku_exp.data.json_values import shortened
from loku_exp.data.records import IGNORED, Example, Records, Sequence, Tokenize
from loku_exp.data.refusals import refusal_to
from loku_exp.data.text_files import Row
from loku_exp.data.tokens import plain_ids
from loku_exp.errors import DataError
from loku_exp.runtime.settings import Template

if TYPE_CHECKING:  # the configuration is checked before anything heavy is imported
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QA:
    """A question with its answer, a paraphrase of it, and wrong answers in the paraphrase's form."""

    row: int
    group: str
    question: str
    answer: str
    paraphrase: str | None = None
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class QACorpus:
    """A question-answer dataset as text; the fields are those of `Records`."""

    target_training: list[QA]
    reference_training: list[QA]
    forget: list[QA]
    retain: list[QA]
    evaluation: dict[str, list[QA]]
    protocol: dict[str, object]

    @property
    def described(self) -> list[str]:
        """See `Corpus`; the forget split says it, where there are several."""
        return [str(self.protocol["forget_split"])] if "forget_split" in self.protocol else []

    def digest(self) -> str:
        """See `Corpus`."""
        sets = {
            "target_training": self.target_training,
            "reference_training": self.reference_training,
            "forget": self.forget,
            "retain": self.retain,
        }
        sets |= {f"evaluation of {name}": rows for name, rows in self.evaluation.items()}
        return digest_of_rows(part for name, rows in sets.items() for part in (name, *rows))

    def texts(self, template: Template) -> list[str]:
        """See `Corpus`."""
        return [
            template.prompt(row.question) + template.answer_tag + row.answer
            for row in self.target_training
        ]

    def training_digest(self, role: Role) -> str:
        """See `Corpus`."""
        return digest_of_rows(self.target_training if role == "target" else self.reference_training)

    def records(
        self, tokenizer: "PreTrainedTokenizerBase", template: Template, max_length: int
    ) -> Records:
        """Encode the corpus with the official labels, see `encode`.

        The forget rows have an alternative ``idk``, a refusal as the answer to the same question.

        Raises:
            DataError: a text does not fit the context (nothing is cut), or no token of an answer counts.
        """
        eos = int(tokenizer.eos_token_id)
        tokenize = partial(plain_ids, tokenizer)

        def encode_all(rows: list[QA], role: str) -> list[Example]:
            return [encode(row, role, tokenize, eos, template, max_length) for row in rows]

        refusals = [replace(row, answer=refusal_to(row.row, row.question)) for row in self.forget]
        forget = [
            replace(example, alternatives=example.alternatives | {"idk": (refused.answer,)})
            for example, refused in zip(
                encode_all(self.forget, "forget"), encode_all(refusals, "idk"), strict=True
            )
        ]
        target_training = encode_all(self.target_training, "target_training")
        _say_joined(template, target_training)
        encoded = dict(zip(self.target_training, target_training, strict=True))
        others = [row for row in self.reference_training if row not in encoded]
        encoded |= zip(others, encode_all(others, "reference_training"), strict=True)
        return Records(
            target_training=target_training,
            reference_training=[encoded[row] for row in self.reference_training],
            forget=forget,
            retain=encode_all(self.retain, "retain"),
            evaluation={name: encode_all(rows, name) for name, rows in self.evaluation.items()},
        )


def _say_joined(template: Template, rows: list[Example]) -> None:
    """Say that answers lose their first word to a prompt that ends in a blank: it is joined, and masked."""
    joined = sum(row.answer.ids[: len(row.prompt)] != row.prompt for row in rows)
    if joined and template.question_end.endswith(" "):
        log.warning(
            "model.template.question_end ends in a blank, which this tokenizer joins with the first word "
            "of an answer: that word is neither trained nor scored in %d of %d rows; put the blank into "
            "model.template.answer_tag",
            joined, len(rows),
        )  # fmt: skip


def wrong_answers(row: Row, column: str, right: str) -> tuple[str, ...]:
    """Return a row's wrong answers.

    Args:
        row: of a file.
        column: that lists them.
        right: the answer.

    Raises:
        DataError: one of them is the right one, which would be compared with itself.
    """
    wrong = row.texts(column)
    for number, text in enumerate(wrong, 1):
        if text.strip() == right.strip():
            raise DataError(
                f"{row.place}: '{column}', item {number}, is the answer itself, not a wrong one"
            )
    return wrong


def encode(
    row: QA, role: str, tokenize: Tokenize, eos: int, template: Template, max_length: int
) -> Example:
    """Encode one row with TOFU's official labels (locuslab/tofu, ``data_module.py``).

    As many tokens are masked as ``question_start + question + question_end`` has *alone*; everything
    after is labelled, then one EOS. So Phi's "Answer: " is labelled, and where Llama-2 merges the
    bracket with an opening quote, that token is masked.
    """
    prompt = template.prompt(row.question)
    prompt_ids = tuple(tokenize(prompt))

    def labelled(answer: str) -> Sequence:
        """Return question and answer, the answer labelled."""
        ids = (*tokenize(prompt + template.answer_tag + answer), eos)
        if len(ids) > max_length:
            raise DataError(
                f"row {row.row} of '{role}' has {len(ids)} tokens with its answer, the model's "
                f"context has {max_length}; shorten the answer or use a model with a longer context"
            )
        if len(ids) <= len(prompt_ids) + 1:  # nothing is left but the end of text
            raise DataError(
                f"row {row.row} of '{role}': no token of its answer {shortened(answer)} is labelled, for "
                "this tokenizer joins it with the end of the prompt; a blank there belongs into "
                "model.template.answer_tag"
            )
        masked = (IGNORED,) * len(prompt_ids)
        return Sequence(ids, masked + ids[len(masked) :])

    alternatives: dict[str, tuple[Sequence, ...]] = {}
    if row.paraphrase is not None:
        alternatives["paraphrase"] = (labelled(row.paraphrase),)
    if row.wrong:
        alternatives["wrong"] = tuple(labelled(wrong) for wrong in row.wrong)
    return Example(
        row=row.row,
        group=row.group,
        role=role,
        prompt=prompt_ids,
        answer=labelled(row.answer),
        alternatives=alternatives,
        question=prompt,
        reference=row.answer,
    )
