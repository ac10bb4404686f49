"""Whether texts share a passage: what is trained on must not be what is evaluated."""

from collections.abc import Hashable, Sequence

from loku_exp.data.text import Text

WINDOW = 30  # words (or token ids) in a row; a shorter text counts whole


def overlaps(ours: list[Text], theirs: list[Text]) -> dict[int, int]:
    """Return, for each row of `ours` that shares a passage with one of `theirs`, that one's row.

    Those that have text are compared by words, those that have token ids by ids; of two that have
    neither in common nothing is known.
    """
    found: dict[int, int] = {}
    for units_of in (_words, _ids):
        owner: dict[Hashable, int] = {}
        for text in theirs:
            for passage in _passages(units_of(text)):
                owner.setdefault(passage, text.row)
        for text in ours:
            shared = next((p for p in _passages(units_of(text)) if p in owner), None)
            if shared is not None:
                found.setdefault(text.row, owner[shared])
    return found


def _words(text: Text) -> Sequence[Hashable]:
    return (text.text or "").split()


def _ids(text: Text) -> Sequence[Hashable]:
    return text.ids or ()


def _passages(units: Sequence[Hashable]) -> list[tuple[Hashable, ...]]:
    count = max(min(1, len(units)), len(units) - WINDOW + 1)
    return [tuple(units[start : start + WINDOW]) for start in range(count)]
