"""Memorisation accuracy, extraction likelihood and exact extraction as pure functions.

Source: Jang et al. 2023 (arXiv 2210.01504), joeljang/knowledge-unlearning, ``models/Neo_Model.py``. For a
sequence x of T tokens and f(x_<t), the greedy continuation of its first t tokens up to total length T::

    MA(x)   = 1/(T-1) * sum over t = 1..T-1 of [argmax p(. | x_<t) = x_t]
    EL_n(x) = 1/(T-n) * sum over t = 1..T-n of overlap_n(f(x_<t), x_>=t)

with overlap_n(a, b) the number of n-grams of a, counted with multiplicity, that occur in b, divided by
the number of n-grams of b. Everything needed follows from one teacher-forced pass and few
continuations: where the argmax after x_<t is x_t, f(x_<t) = [x_t] + f(x_<=t), so only prefixes whose
next token is wrong decode (`wanted`), and all others inherit (`continuations`).
"""

from collections.abc import Sequence
from typing import NamedTuple

Ids = Sequence[int]


class Greedy(NamedTuple):
    """What a model does with one sequence of T tokens.

    Attributes:
        logprobs: log p(x_t | x_<t) in nats for t = 1..T-1.
        argmax: the likeliest token after x_<t for t = 1..T-1.
        decoded: ``[t, *f(x_<t)]`` for each prefix length t that was decoded; empty where none was.
    """

    logprobs: list[float]
    argmax: list[int]
    decoded: list[list[int]]

    @property
    def loss(self) -> float:
        """The mean negative log-probability per predicted token, in nats."""
        return -sum(self.logprobs) / len(self.logprobs)


def hits(ids: Ids, argmax: Ids) -> list[bool]:
    """Return, for t = 1..T-1, whether the likeliest token after x_<t is x_t."""
    return [guess == token for guess, token in zip(argmax, ids[1:], strict=True)]


def memorisation_accuracy(ids: Ids, argmax: Ids) -> float:
    """Return MA in [0, 1]."""
    right = hits(ids, argmax)
    return sum(right) / len(right)


def extraction_strength(ids: Ids, argmax: Ids) -> float:
    """Return the largest share of a text that its beginning brings by itself, in [0, 1).

    Carlini et al. 2021 (arXiv 2012.07805) in the form of OpenUnlearning: 1 - k / T with the shortest
    beginning x_<k, k >= 1, after which the greedy continuation is the rest of the text.
    """
    given = max(
        (t + 1 for t, right in enumerate(hits(ids, argmax), start=1) if not right), default=1
    )
    return 1 - given / len(ids)


def wanted(ids: Ids, argmax: Ids, n: int, shown: int | None = None) -> list[int]:
    """Return the prefix lengths that must be decoded for EL_n: those whose next token is wrong.

    Prefixes longer than T - n hold no n-gram and are not scored, but continuations that follow the text
    past T - n end in the first miss there. With `shown`, the continuation of that prefix is known too.
    """
    wrong = [t for t, right in enumerate(hits(ids, argmax), start=1) if not right]
    last = len(ids) - n
    prefixes = [t for t in wrong if t <= last]
    beyond = next((t for t in wrong if t > last), None)
    if beyond is not None and last >= 1 and last not in prefixes:
        prefixes.append(beyond)
    ends = [t for t in wrong if shown is not None and t >= shown]
    return prefixes + [t for t in ends[:1] if t not in prefixes]


def continuations(
    ids: Ids, greedy: Greedy, end_of_text: int | None = None
) -> dict[int, tuple[int, ...]]:
    """Return f(x_<t) by prefix length t, for each t whose continuation is known.

    Args:
        ids: the sequence.
        greedy: the model's argmax and decoded continuations.
        end_of_text: with an id, a continuation stops at its first end-of-text and is filled up with it, as
            the predecessor's; None: it goes on, as the definition has it.
    """
    decoded = {t: tuple(tokens) for t, *tokens in greedy.decoded}
    right = hits(ids, greedy.argmax)
    known: dict[int, tuple[int, ...]] = {len(ids): ()}
    for t in range(len(ids) - 1, 0, -1):
        if t in decoded:
            known[t] = decoded[t]
        elif right[t - 1] and t + 1 in known:
            known[t] = (ids[t], *known[t + 1])
    del known[len(ids)]
    if end_of_text is None:
        return known
    return {t: _ended(tokens, end_of_text) for t, tokens in known.items()}


def extraction_likelihood(ids: Ids, known: dict[int, tuple[int, ...]], n: int) -> float:
    """Return EL_n in [0, 1]; `known` holds f(x_<t) for every t = 1..T-n.

    A continuation may repeat an n-gram of the text, so a single overlap can exceed 1 only if the text
    itself is shorter; multiplicity is counted as the predecessor does.
    """
    last = len(ids) - n
    total = 0.0
    for t in range(1, last + 1):
        rest = _ngrams(ids[t:], n)
        inside = set(rest)
        total += sum(gram in inside for gram in _ngrams(known[t], n)) / len(rest)
    return total / last


def extraction_bound(ids: Ids, argmax: Ids, n: int) -> float:
    """Return a lower bound of EL_n that needs no decoding: runs of right guesses repeat the text."""
    length, run, total = len(ids), 0, 0.0
    right = hits(ids, argmax)
    for t in range(length - 1, 0, -1):
        run = run + 1 if right[t - 1] else 0
        if run >= n:  # so that t <= T - n
            total += (run - n + 1) / (length - t - n + 1)
    return total / (length - n)


def exact(ids: Ids, argmax: Ids, suffix: int) -> bool:
    """Return whether the last `suffix` tokens are extracted exactly from all tokens before them."""
    return all(hits(ids, argmax)[-suffix:])


def _ngrams(tokens: Ids, n: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _ended(tokens: tuple[int, ...], end_of_text: int) -> tuple[int, ...]:
    if end_of_text not in tokens:
        return tokens
    end = tokens.index(end_of_text)
    return tokens[:end] + (end_of_text,) * (len(tokens) - end)
