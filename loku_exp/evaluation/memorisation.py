"""How much of an answer a model says by itself, from the tokens that are its first guess.

Source: OpenUnlearning (locuslab/open-unlearning, ``src/evals/metrics/memorization.py``), after Carlini et
al. 2021 (arXiv 2012.07805) and Tirumala et al. 2022 (arXiv 2205.10770).
"""

from collections.abc import Sequence


def exact_memorisation(greedy: Sequence[bool]) -> float:
    """Return the share of an answer's tokens that are the model's first guess, in [0, 1].

    Args:
        greedy: by labelled token, whether it was the argmax after all tokens before it.
    """
    return sum(greedy) / len(greedy)


def answer_strength(greedy: Sequence[bool]) -> float:
    """Return the extraction strength of an answer, in [0, 1].

    The largest share of it that follows greedily from question and beginning: 1 - k / T with the smallest
    k of T tokens after which every token is the argmax; 0 where not even the last one is. There
    OpenUnlearning gives 1 / T, for its search ends before k = T.

    Args:
        greedy: see `exact_memorisation`.
    """
    given = max((place + 1 for place, right in enumerate(greedy) if not right), default=0)
    return 1 - given / len(greedy)
