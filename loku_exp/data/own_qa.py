"""Questions and answers of the user's own: some to forget, some to keep.

With a paraphrase and wrong answers for every row, truth ratios are measured, and with a reference forget
quality; without them probability and ROUGE are what there is.
"""

import logging
from collections import Counter
from typing import Literal

from loku_exp.data.own_texts import absent
from loku_exp.data.qa import QA, QACorpus, wrong_answers
from loku_exp.data.text_files import Row, is_blank, read_source
from loku_exp.errors import DataError, nearest
from loku_exp.runtime.knobs import Count

log = logging.getLogger(__name__)
OPTIONAL = ("paraphrase", "wrong", "group")  # columns that a file may lack
SHOWN = 5  # places in a message


def load_qa(
    *,
    forget: str | None = None,
    retain: str | None = None,
    question: str = "question",
    answer: str = "answer",
    paraphrase: str = "paraphrased_answer",
    wrong: str = "perturbed_answer",
    group: str = "group",
    evaluated: Count = 300,
    overlap: Literal["error", "drop"] = "error",
) -> QACorpus:
    """Load questions with answers from files (jsonl, json, csv, parquet) or hub datasets.

    Args:
        forget: what is to be forgotten; a file, ``owner/name`` or ``owner/name:configuration``.
        retain: what is to be kept, likewise.
        question: column of the questions.
        answer: column of the answers.
        paraphrase: column of the answer in other words; where a file lacks it, there are none.
        wrong: column of wrong answers in the paraphrase's form (a list), likewise.
        group: column of what rows hang together, e.g. a person; where a file lacks it, each row is alone.
        evaluated: rows of the retain set that are evaluated, the first ones.
        overlap: what becomes of retain rows whose question is in the forget set: an ``error``, or they are
            dropped.

    Raises:
        DataError: something cannot be read, a column is missing, or the sets overlap.
    """
    if wrong_knobs := problems(forget=forget, retain=retain):
        raise DataError("\n".join(wrong_knobs))
    columns = {"question": question, "answer": answer, "paraphrase": paraphrase}
    columns |= {"wrong": wrong, "group": group}
    given = {"forget": str(forget), "retain": str(retain)}
    read = {name: read_source(source, question) for name, source in given.items()}
    _check_named(columns, [row for rows in read.values() for row in rows])
    sets = {name: _rows(name, rows, columns) for name, rows in read.items()}
    retained = _apart(sets["retain"], sets["forget"], overlap)
    return QACorpus(
        target_training=[*sets["forget"], *retained],
        reference_training=retained,
        forget=sets["forget"],
        retain=retained,
        evaluation={"forget": sets["forget"], "retain": retained[:evaluated]},
        protocol={
            "forget_split": f"{len(sets['forget'])} own questions",
            "retain_rows": len(retained),
        },
    )


def _check_named(columns: dict[str, str], rows: list[Row]) -> None:
    """Check that an optional column that a user names is in one of the files.

    Raises:
        DataError: it is in none.
    """
    there = {column for row in rows for column in row.values}
    for part in OPTIONAL:
        usual = ((load_qa.__kwdefaults__ or {})[part], "none")
        if columns[part] not in (*usual, *there):
            raise DataError(
                f"dataset.{part}={columns[part]}: no row has this column{nearest(columns[part], there)} "
                f"(there are {', '.join(sorted(there))}); without any: dataset.{part}=none"
            )


def _rows(name: str, rows: list[Row], columns: dict[str, str]) -> list[QA]:
    has = {part: all(_has(row, columns[part]) for row in rows) for part in OPTIONAL}
    for part in OPTIONAL:
        bare = next((row for row in rows if not _has(row, columns[part])), None)
        if bare is not None and any(_has(row, columns[part]) for row in rows):
            raise DataError(
                f"{bare.place}: '{columns[part]}' is missing, other rows of the {name} set have it; fill "
                f"it in, or leave the column out: dataset.{part}=none"
            )
    found = [
        QA(
            row=number,
            group=str(row.values[columns["group"]]) if has["group"] else f"row {number}",
            question=row.text(columns["question"], "dataset.question"),
            answer=row.text(columns["answer"], "dataset.answer"),
            paraphrase=row.text(columns["paraphrase"]) if has["paraphrase"] else None,
            wrong=wrong_answers(row, columns["wrong"], row.text(columns["answer"]))
            if has["wrong"]
            else (),
        )
        for number, row in enumerate(rows)
    ]
    counts = Counter((row.question, row.answer) for row in found)
    twice = [rows[row.row].place for row in found if counts[row.question, row.answer] > 1]
    if twice:
        log.warning("dataset.%s: the same question and answer again: %s", name, _places(twice))
    return found


def _has(row: Row, column: str) -> bool:
    """Return whether a row has something in a column; in a csv a cell that was left out is empty text."""
    value = row.values.get(column)
    return value is not None and not (isinstance(value, str) and is_blank(value))


def _apart(retain: list[QA], forget: list[QA], overlap: str) -> list[QA]:
    """Return the retain rows whose question is not in the forget set.

    Raises:
        DataError: some are, or nothing is left.
    """
    asked = {row.question.strip(): row.row for row in forget}
    shared = [row for row in retain if row.question.strip() in asked]
    pairs = _places([f"row {row.row} (forget row {asked[row.question.strip()]})" for row in shared])
    if shared and overlap == "error":
        raise DataError(
            f"dataset.retain: {len(shared)} questions are in the forget set too: {pairs}; remove them, or "
            "set dataset.overlap=drop"
        )
    kept = [row for row in retain if row not in shared]
    if not kept:
        raise DataError("dataset.retain: every question is in the forget set; give others")
    if shared:
        log.warning("dataset.retain: dropped for a question of the forget set: %s", pairs)
    return kept


def _places(places: list[str]) -> str:
    return ", ".join(places[:SHOWN]) + (", ..." if len(places) > SHOWN else "")


def problems(*, forget: str | None = None, retain: str | None = None, **_: object) -> list[str]:
    """Return what is missing, without reading anything."""
    given = {"forget": forget, "retain": retain}
    unset = [
        f"dataset.{name} is not set; give a jsonl, json, csv or parquet file: dataset.{name}=FILE"
        for name, value in given.items()
        if value is None
    ]
    return unset + absent(given)
