"""Which texts of TDEC are kept, evaluated and unseen: seeded draws that share no passage."""

import random
from typing import NamedTuple

import numpy as np

from loku_exp.data.overlap import overlaps
from loku_exp.data.tdec_files import array_text
from loku_exp.data.text import Text
from loku_exp.errors import DataError
from loku_exp.runtime.seeds import derive


class Memorised(NamedTuple):
    """Texts that a target knows by heart.

    Attributes:
        forget: to be forgotten.
        siblings: not to be forgotten; evaluated.
        retained: not to be forgotten; trained on.
    """

    forget: list[Text]
    siblings: list[Text]
    retained: list[Text]

    @property
    def rows(self) -> set[int]:
        """The rows of all of them."""
        return {text.row for texts in self for text in texts}


class Halves(NamedTuple):
    """A retain corpus: rows to train on, rows to evaluate, and how many were left out."""

    trained: list[Text]
    held_out: list[Text]
    dropped: int


def memorised(forget: list[Text], others: list[Text], siblings: int, retained: int) -> Memorised:
    """Return the forget set with the first of the other texts that share no passage with it.

    Args:
        forget: the forget set.
        others: further memorised texts, in the order they are taken.
        siblings: how many are evaluated, at most.
        retained: how many are trained on, at most; they share none with the siblings either.
    """
    others = _apart(others, forget)
    chosen = others[:siblings]
    return Memorised(forget, chosen, _apart(others[siblings:], chosen)[:retained])


def drawn_unseen(pool: list[Text], known: Memorised, count: int, seed: int) -> list[Text]:
    """Return up to `count` texts of a pool that share no passage with a memorised one.

    Raises:
        DataError: there is none; nothing could be measured on unseen text.
    """
    size = len(pool)
    pool = _apart(pool, [text for texts in known for text in texts])
    if not pool:
        raise DataError(
            f"dataset.unseen_source: all of its {size} texts share a passage with a memorised one, so "
            "none is unseen; take the other of pile and forget_sets, or a larger file"
        )
    drawn = _rng(seed, "unseen").sample(range(len(pool)), min(count, len(pool)))
    return [pool[row] for row in drawn]


def drawn_rows(arrays: np.ndarray, without: list[int], count: int, seed: int) -> list[Text]:
    """Return up to `count` other rows of the arrays."""
    rows = [row for row in range(len(arrays)) if row not in set(without)]
    drawn = _rng(seed, "siblings").sample(rows, min(count, len(rows)))
    return [array_text(arrays, row) for row in drawn]


def split_corpus(
    corpus: list[Text],
    share: float,
    seed: int,
    evaluated: list[Text],
    overlap: str,
    name: str,
) -> Halves:
    """Split a retain corpus into rows to train on and rows to evaluate, with nothing in common.

    Raises:
        DataError: it overlaps with `evaluated`, or one of the two would be empty.
    """
    shared = overlaps(corpus, evaluated)
    if shared and overlap == "error":
        some = ", ".join(
            f"row {ours} with row {theirs}" for ours, theirs in list(shared.items())[:5]
        )
        raise DataError(
            f"dataset.retain={name}: {len(shared)} rows share text with the forget set or with evaluation "
            f"texts ({some}); dataset.overlap=drop leaves them out"
        )
    corpus = [text for text in corpus if text.row not in shared]
    order = _rng(seed, "retain").sample(range(len(corpus)), len(corpus))
    count = round(share * len(corpus))
    trained = [corpus[i] for i in sorted(order[:count])]
    held_out = [corpus[i] for i in sorted(order[count:])]
    repeated = overlaps(held_out, trained)
    kept = [text for text in held_out if text.row not in repeated]
    for rows, use in ((trained, "train on"), (kept, "evaluate")):
        if not rows:
            raise DataError(
                f"dataset.retain={name}: {len(corpus)} rows without overlap leave none to {use} at "
                f"dataset.retain_share={share}; give a larger corpus"
            )
    return Halves(trained, kept, len(shared) + len(repeated))


def _rng(seed: int, stream: str) -> random.Random:
    return random.Random(derive(seed, "tdec", stream))


def _apart(texts: list[Text], others: list[Text]) -> list[Text]:
    """Return the texts that share no passage with any of the others."""
    shared = overlaps(texts, others)
    return [text for text in texts if text.row not in shared]
