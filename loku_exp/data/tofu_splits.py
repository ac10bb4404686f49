"""Which rows of TOFU belong to which set: the order of its files, and the authors that are used.

All splits are slices of ``full``: the forget set is its end, the retain set the rest, the evaluated
retain rows its beginning. Ids, authors and the pairing with a reference follow from places in it.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from loku_exp.data.qa import QA
from loku_exp.data.text_files import Row
from loku_exp.errors import DataError

log = logging.getLogger(__name__)

QUESTIONS_PER_AUTHOR = 20
PERCENT = {"forget01": 1, "forget05": 5, "forget10": 10}
"""By forget split: its share of the authors."""


class Authors(NamedTuple):
    """How many authors there are: in all, in the forget split, and evaluated as retain authors."""

    total: int
    forget: int
    evaluated: int

    @classmethod
    def counted(cls, full: int, forget: int, evaluated: int) -> "Authors":
        """Return the authors of so many rows.

        Raises:
            DataError: the rows are not 20 an author, so that no authors can be chosen.
        """
        if full % QUESTIONS_PER_AUTHOR or forget % QUESTIONS_PER_AUTHOR:
            raise DataError(
                f"dataset.authors needs {QUESTIONS_PER_AUTHOR} questions an author; full has {full} rows "
                f"and the forget split {forget}. Leave dataset.authors out"
            )
        return cls(*(-(-rows // QUESTIONS_PER_AUTHOR) for rows in (full, forget, evaluated)))

    def problems(self, number: int, forget_split: str, spare: bool) -> list[str]:
        """Return whether so many authors cannot be used, and how many can.

        Args:
            number: of authors.
            forget_split: whose share is forgotten.
            spare: whether one retain author at least must not be evaluated.
        """
        fitting = []
        for authors in range(1, self.total + 1):
            forget = forgotten(authors, forget_split)
            kept = range(self.evaluated + spare, self.total - self.forget + 1)
            if forget <= self.forget and authors - forget in kept:
                fitting.append(authors)
        if number in fitting:
            return []
        stay = f"the first {self.evaluated}, whose rows evaluate the retain set, stay"
        if spare:
            stay += ", and with retain_draw=exclude_evaluated another one, to be trained on"
        can = f"{fitting[0]} to {fitting[-1]}" if fitting else "no number"
        return [
            f"dataset.authors={number}: {can} of the {self.total} authors can be used: the last "
            f"{PERCENT[forget_split]} % of them are forgotten (rounded, at least one), and {stay}; null "
            "uses all"
        ]

    def slices(self, number: int, forget_split: str) -> tuple[int, int]:
        """Return where in ``full`` the retain rows of so many authors end and their forget rows begin."""
        forget = forgotten(number, forget_split)
        ends = number - forget, self.total - forget
        return ends[0] * QUESTIONS_PER_AUTHOR, ends[1] * QUESTIONS_PER_AUTHOR


TOFU_AUTHORS = {split: Authors(200, 2 * percent, 20) for split, percent in PERCENT.items()}
"""By forget split: the authors of the published TOFU."""


def author_of(row: int) -> str:
    """Return the author of a row of ``full``."""
    return f"author {row // QUESTIONS_PER_AUTHOR}"


def forgotten(authors: int, forget_split: str) -> int:
    """Return how many of so many authors are forgotten: 1, 5 or 10 %, halves up, at least one."""
    return max(1, (authors * PERCENT[forget_split] + 50) // 100)


def check_questions(path: str, split: str, rows: list[Row], expected: list[QA], what: str) -> None:
    """Check that a split asks what it must, in the same order; other answers are warned of.

    Args:
        path: folder or hub id.
        split: name of the split.
        rows: its rows.
        expected: rows of ``full``.
        what: these are, in words.

    Raises:
        DataError: it does not; names the first row that differs.
    """
    asked, due = [row.text("question") for row in rows], [row.question for row in expected]
    if len(asked) != len(due):
        raise DataError(
            f"{split} in {path} has {len(asked)} rows, {what} {len(due)}; the files do not belong "
            "together, take all from one release"
        )
    for row, ours, theirs in zip(rows, asked, due, strict=True):
        if ours != theirs:
            shuffled = Counter(asked) == Counter(due)
            fix = "put it in that order" if shuffled else "take all files from one release"
            raise DataError(
                f"{row.place}: {split} is not {what}: it asks {ours!r}, there it is {theirs!r}; {fix}"
            )
    pairs = zip(rows, expected, strict=True)
    others = [row.place for row, one in pairs if row.text("answer") != one.answer]
    if others:
        log.warning("%s: answers of %s are not those of full: %d", others[0], split, len(others))


def check_apart(forget: Iterable[QA], retain: Iterable[QA], place: str) -> None:
    """Check that no row is both forgotten and retained; case, spaces and forms of letters aside.

    Raises:
        DataError: one is.
    """
    kept = {_plain(row): row.row for row in retain}
    for row in forget:
        if _plain(row) in kept:
            raise DataError(
                f"{place}: row {row.row + 1} of full is to be forgotten, and row {kept[_plain(row)] + 1} "
                f"of the retain set is the same ({row.question!r}); take it out of one of the two"
            )


def _plain(row: QA) -> tuple[str, str]:
    question, answer = (
        " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        for text in (row.question, row.answer)
    )
    return question, answer
