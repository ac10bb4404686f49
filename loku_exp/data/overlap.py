"""Whether texts share a passage: what is trained on must not be what is evaluated."""

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence

from loku_exp.data.text import Text

WINDOW = 30  # words (or token ids) in a row; a shorter text counts whole
SHORT = 10  # words that a shorter text has at least, to be looked for inside of others
# A character of a script without spaces between words (Thai to Khmer, kana, Chinese) is a word of its own.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
Units = Sequence[Hashable]
Passage = tuple[Hashable, ...]


def overlaps(ours: list[Text], theirs: list[Text]) -> dict[int, int]:
    """Return, for each row of `ours` that shares a passage with one of `theirs`, that one's row.

    A passage is `WINDOW` words in a row, or the whole of a shorter text; one of `SHORT` words or more is
    found inside of longer texts too. Those that have text are compared by words, those that have token ids
    by ids; of two that have neither in common nothing is known.
    """
    found: dict[int, int] = {}
    for units_of in (_words, _ids):
        mine = [(text.row, units_of(text)) for text in ours]
        others = [(text.row, units_of(text)) for text in theirs]
        owner: dict[Passage, int] = {}
        for row, units in others:
            for passage in _passages(units, WINDOW):
                owner.setdefault(passage, row)
        of_short = {passage: rows[-1] for passage, rows in _short(others).items()}
        for row, units in mine:
            for known, size in [(owner, WINDOW), *((of_short, size) for size in _sizes(of_short))]:
                shared = next((p for p in _passages(units, size) if p in known), None)
                if shared is not None:
                    found.setdefault(row, known[shared])
        of_mine = _short(mine)
        for row, units in others:
            for size in _sizes(of_mine):
                for passage in _passages(units, size):
                    for each in of_mine.get(passage, ()):
                        found.setdefault(each, row)
    return found


def _words(text: Text) -> Units:
    return WORD.findall(text.text or "")


def _ids(text: Text) -> Units:
    return text.ids or ()


def _short(texts: list[tuple[int, Units]]) -> dict[Passage, list[int]]:
    """Return texts shorter than a passage and long enough to be looked for, with all rows that are so."""
    found: dict[Passage, list[int]] = {}
    for row, units in texts:
        if SHORT <= len(units) < WINDOW:
            found.setdefault(tuple(units), []).append(row)
    return found


def _sizes(short: Iterable[Passage]) -> list[int]:
    return sorted({len(passage) for passage in short})


def _passages(units: Units, size: int) -> Iterator[Passage]:
    """Yield what stands in a row so many units long; the whole where there are fewer."""
    for start in range(max(min(1, len(units)), len(units) - size + 1)):
        yield tuple(units[start : start + size])
