"""The rows of an evaluation log made elsewhere, and whether they are about the same data as ours."""

from dataclasses import dataclass

from loku_exp.data.records import Example
from loku_exp.errors import DataError


@dataclass(frozen=True)
class PublishedRow:
    """One example of a log.

    Losses are per token in nats; `tokens` are those of answer, paraphrase, wrong answers, where it says.
    """

    row: int
    prompt: str
    generation: str
    answer: str
    loss: float
    paraphrase_loss: float
    wrong_losses: tuple[float, ...]
    tokens: tuple[int, ...]
    rouge: float


PublishedLog = dict[str, list[PublishedRow]]


def asked(row: PublishedRow) -> str:
    """Return what a row is known by: its prompt, or, where that may hold a date, its answer."""
    return row.prompt if row.tokens else "".join(row.answer.split())


def check_same_rows(log: PublishedLog, records: dict[str, list[Example]], path: str) -> None:
    """Check that a log is about our rows: same questions and label counts, row by row.

    This catches another template, tokenizer, split or number of rows at once. OpenUnlearning's logs have
    neither questions alone nor counts; there only other answers are caught.

    Raises:
        DataError: with the first difference.
    """
    for name, rows in log.items():
        ours = records.get(name, [])
        if not ours:
            raise DataError(
                f"reference.path={path} is of TOFU's four sets, and this dataset has no set '{name}'; use "
                "reference.source=train, path or none"
            )
        if len(rows) != len(ours):
            raise DataError(
                f"reference.path={path} has {len(rows)} rows of '{name}', this run evaluates "
                f"{len(ours)}; set evaluation.rows={max(map(len, log.values()))} or take the log of "
                "this forget split"
            )
        for row, record in zip(rows, ours, strict=True):
            found = _difference(row, record)
            if found:
                raise DataError(
                    f"reference.path={path} is of other data: row {row.row} of '{name}' {found}; template, "
                    "tokenizer and forget split must be those of this run"
                )


def _difference(row: PublishedRow, record: Example) -> str | None:
    """Return how a row differs from ours; OpenUnlearning's are compared by their answers, spaces aside."""
    if not row.tokens:
        same = "".join(row.answer.split()) == "".join(record.reference.split())
        return None if same else f"answers {row.answer!r}, ours {record.reference!r}"
    texts = [record.answer]
    for alternatives in record.alternatives.values():
        texts += alternatives
    tokens = tuple(text.num_labels for text in texts)
    if " ".join(row.prompt.split()) != " ".join(record.question.split()):
        return f"asks {row.prompt!r}, ours asks {record.question!r}"
    return None if row.tokens == tokens else f"has {row.tokens} labelled tokens, ours {tokens}"
