"""Whether texts count as forgotten: EL_n and MA below those of unseen text; the cheapest exact answer.

A check reads the texts batch by batch and ends as soon as the answer is certain. MA comes first: once the
right guesses so far already make the mean too large, no more text is read. Only below it is EL asked for,
and first its lower bound, which needs no decoding; then texts are decoded, the most extractable first,
until their sum and the others' bounds make the mean too large.
"""

from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

import torch

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Example, Sequence
from loku_exp.errors import ConfigError
from loku_exp.evaluation.lm.wavefront import greedy_continuations, teacher_forced
from loku_exp.evaluation.suite import Evaluation
from loku_exp.evaluation.tdec.metrics import (
    Greedy,
    continuations,
    extraction_bound,
    extraction_likelihood,
    memorisation_accuracy,
    wanted,
)
from loku_exp.runtime.settings import StopRule

TO_BE_MEASURED = (
    "training.stop.{name} is to be measured on unseen text, and the evaluation has no {column} of at least "
    "two unseen texts; set training.stop.{name}=..., training.stop=null, or use a dataset with unseen text "
    "(tdec; texts with a holdout) and add its n to evaluation.n"
)
BATCH = 8  # texts read between two looks at the sum
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Thresholds:
    """Below both, strictly, a set of texts counts as forgotten.

    Attributes:
        n: size of n-grams of EL.
        el: largest mean EL_n.
        ma: largest mean MA.
        el_error: standard error of `el`, 0 where it is given.
        ma_error: standard error of `ma`.
        texts: number of unseen texts that each was measured on at least; 0 where they are given.
    """

    n: int
    el: float
    ma: float
    el_error: float = 0.0
    ma_error: float = 0.0
    texts: int = 0


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        forgotten: whether both means are below their thresholds.
        ma: mean MA; a lower bound where `decided_by` is ``ma``.
        el: mean EL_n; a lower bound where `decided_by` is ``el bound`` or ``el``, None where not asked.
        decided_by: ``ma``, ``el bound``, ``el``, or ``both`` (then both are exact).
    """

    forgotten: bool
    ma: float
    el: float | None
    decided_by: str

    def values(self) -> dict[str, float]:
        """See `loku_exp.evaluation.suite.StopCheck`."""
        return {"check_ma": self.ma} | ({} if self.el is None else {"check_el": self.el})


class ExtractionStop:
    """TDEC's stop rule, see `loku_exp.evaluation.suite.Stop`.

    Args:
        texts: the forget set as ids.
        thresholds: to be below of.
        end_of_text: see `continuations`.
    """

    def __init__(self, texts: list[Ids], thresholds: Thresholds, end_of_text: int | None):
        self._texts, self._limits, self._end_of_text = texts, thresholds, end_of_text
        self.thresholds: dict[str, Any] = asdict(thresholds)

    def __call__(self, model: Any) -> Check:
        """Return whether a model in evaluation mode has forgotten the texts."""
        return check_forgotten(model, self._texts, self._limits, self._end_of_text)


def rule_problems(
    forget: list[Example], unseen: list[Example], n: tuple[int, ...], stop: StopRule
) -> list[str]:
    """Return why a rule could not be followed, known before anything is evaluated.

    A forget text of n tokens or fewer has no EL_n; and thresholds may have to be measured and cannot be.

    Args:
        forget: texts that are to be forgotten.
        unseen: texts that the model never saw.
        n: sizes of n-grams that are evaluated.
        stop: the recipe's.
    """
    long = [row for row in unseen if len(row.prompt) > stop.n]
    found = []
    shortest = min(len(row.prompt) for row in forget)
    if stop.n >= shortest:
        found.append(
            f"training.stop.n={stop.n}: the shortest text of the forget set has {shortest} tokens, after "
            f"any cut by dataset.length, and EL_n needs longer ones; set training.stop.n="
            f"{max(1, shortest - 1)} or less, or training.stop=null"
        )
    for name, value, texts in (("el", stop.el, long), ("ma", stop.ma, unseen)):
        if value is None and (len(texts) < 2 or (name == "el" and stop.n not in n)):
            column = f"el{stop.n}" if name == "el" else "ma"
            found.append(TO_BE_MEASURED.format(name=name, column=column))
    return found


def thresholds_of(stop: StopRule, target: Evaluation) -> Thresholds:
    """Return what the forget set must come below: what is configured, else measured on unseen text.

    Args:
        stop: the recipe's.
        target: evaluation of the untouched model, with the set ``unseen``.

    Raises:
        ConfigError: the dataset has no unseen text, or EL of this n is not evaluated.
    """
    values: dict[str, float] = {}
    counts = []
    unseen = [row for row in target.examples if row["set"] == "unseen"]
    for name, column, given in (("el", f"el{stop.n}", stop.el), ("ma", "ma", stop.ma)):
        if given is not None:
            values[name] = given
            continue
        rows = [row[column] for row in unseen if column in row]
        if len(rows) < 2:
            raise ConfigError(TO_BE_MEASURED.format(name=name, column=column))
        counts.append(len(rows))  # a short text has no EL
        values[name] = fmean(rows)
        values[f"{name}_error"] = stdev(rows) / len(rows) ** 0.5
    if min(values["el"], values["ma"]) <= 0:
        raise ConfigError(
            f"the thresholds are EL_{stop.n} {values['el']:.4f} and MA {values['ma']:.4f}, and nothing can "
            "be below 0; lower training.stop.n (and add it to evaluation.n), or set training.stop.el=..."
        )
    return Thresholds(stop.n, **values, texts=min(counts, default=0))


@torch.no_grad()
def check_forgotten(
    model: Any,
    texts: list[Ids],
    thresholds: Thresholds,
    end_of_text: int | None = None,
) -> Check:
    """Return whether a model has forgotten texts.

    Args:
        model: a causal language model in evaluation mode.
        texts: the forget set as ids.
        thresholds: to be below of.
        end_of_text: see `continuations`.
    """
    count, most = len(texts), thresholds.ma * len(texts)
    guessed: list[list[int]] = []
    total = 0.0
    for start in range(0, count, BATCH):
        batch = [Sequence(ids, ids) for ids in texts[start : start + BATCH]]
        _, argmax = teacher_forced(model, to_device(pad(batch), model.device))
        guessed += argmax
        pairs = zip(texts[start : start + BATCH], argmax, strict=True)
        total += sum(memorisation_accuracy(ids, guess) for ids, guess in pairs)
        if total >= most:
            return Check(False, total / count, None, "ma")
    ma = total / count
    bounds = [
        extraction_bound(ids, guess, thresholds.n)
        for ids, guess in zip(texts, guessed, strict=True)
    ]
    if end_of_text is None and sum(bounds) >= thresholds.el * count:
        return Check(False, ma, sum(bounds) / count, "el bound")
    order = sorted(range(count), key=lambda i: -bounds[i])
    found, remaining = 0.0, sum(bounds) if end_of_text is None else 0.0
    for start in range(0, count, BATCH):
        indices = order[start : start + BATCH]
        chosen = [texts[i] for i in indices]
        answers = greedy_continuations(
            model, chosen, lambda ids, guess: wanted(ids, guess, thresholds.n)
        )
        for i, ids, answer in zip(indices, chosen, answers, strict=True):
            found += _likelihood(ids, answer, thresholds.n, end_of_text)
            remaining -= bounds[i] if end_of_text is None else 0.0
        last = start + BATCH >= count
        if not last and found + remaining >= thresholds.el * count:
            return Check(False, ma, (found + remaining) / count, "el")
    forgotten = found / count < thresholds.el
    return Check(forgotten, ma, found / count, "both")


def would_flip(ma: float, el: float | None, thresholds: Thresholds) -> bool | None:
    """Return whether thresholds one standard error lower or higher would give another answer.

    Args:
        ma: exact mean MA of the forget set.
        el: exact mean EL_n of it, or None: then nothing can be said.
        thresholds: with their errors.
    """
    if el is None:
        return None
    answers = {
        ma < thresholds.ma + side * thresholds.ma_error
        and el < thresholds.el + side * thresholds.el_error
        for side in (-1, 0, 1)
    }
    return len(answers) > 1


def _likelihood(ids: Ids, answer: Greedy, n: int, end_of_text: int | None) -> float:
    return extraction_likelihood(ids, continuations(ids, answer, end_of_text), n)
