"""Whether texts share a passage: what is trained on must not be what is evaluated."""

from collections.abc import Hashable, Sequence

from loku_exp.data.text import Text

WINDOW = 30  # words (or token ids) in a row; a shorter text counts whole


def overlaps(ours: list[Text], theirs: list[Text]) -> dict[int, int]:
    """Return, for each row of `ours` that shares a passage with one of `theirs`, that one's row.

    Texts are compared by words where all have text, by token ids where all have ids; two lists that
    have neither in common cannot be compared and share nothing.
    """
    everything = [*ours, *theirs]
    by_words = all(text.text is not None for text in everything)
    if not by_words and not all(text.ids is not None for text in everything):
        with_ids = [text for text in theirs if text.ids is not None]
        return overlaps(ours, with_ids) if len(with_ids) < len(theirs) else {}
    owner: dict[Hashable, int] = {}
    for text in theirs:
        for passage in _passages(_units(text, by_words)):
            owner.setdefault(passage, text.row)
    found = {}
    for text in ours:
        for passage in _passages(_units(text, by_words)):
            if passage in owner:
                found[text.row] = owner[passage]
                break
    return found


def _units(text: Text, by_words: bool) -> Sequence[Hashable]:
    return (text.text or "").split() if by_words else text.ids or ()


def _passages(units: Sequence[Hashable]) -> set[tuple[Hashable, ...]]:
    count = max(1, len(units) - WINDOW + 1)
    return {tuple(units[start : start + WINDOW]) for start in range(count)}
