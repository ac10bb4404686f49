"""A loss with a term on the adapter's A and B beside it, for any method that takes a loss."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loku_exp.data.records import Records
from loku_exp.errors import UserError
from loku_exp.fisher.moments import moments_measure
from loku_exp.losses.regularisers import Penalty
from loku_exp.losses.scores import LossTerms, Scores
from loku_exp.runtime.chosen import Chosen


@dataclass(frozen=True, kw_only=True)
class Regularised(Chosen):
    """A chosen loss whose function adds what a regulariser says, under its name.

    Attributes:
        regulariser: the function, see `loku_exp.losses.regularisers`.
        records: what it may measure on.
    """

    regulariser: Chosen
    records: Records

    def resolve(self) -> Callable[..., LossTerms]:
        """Return the loss with its regulariser, which measures when it is first called."""
        return _Sum(super().resolve(), self.regulariser, self.records)


class _Sum:
    """A loss and a regulariser; the latter measures on the target before the first update of a process."""

    def __init__(self, loss: Callable[..., LossTerms], regulariser: Chosen, records: Records):
        self.loss, self.regulariser, self.records = loss, regulariser, records
        self.penalty: Penalty | None = None

    def __call__(self, **given: Any) -> LossTerms:
        """Return the terms of the loss, and that of the regulariser."""
        terms, name = self.loss(**given), self.regulariser.name
        scores = next(value for value in given.values() if isinstance(value, Scores))
        if self.penalty is None:
            self.penalty = self._measured(scores)
        now = scores.factors
        device = next(iter(now.values())).b.device.type
        with torch.autocast(
            device, enabled=False
        ):  # A and B are fp32, and so is what is said of them
            value = self.penalty(now)
        if name in terms.by_name():
            raise UserError(
                f"regulariser={name}: the loss has a term of that name; rename one of them"
            )
        if not isinstance(value, Tensor) or value.dim():
            raise UserError(
                f"regulariser={name}: its value is {value!r:.80}; it must be one number"
            )
        return replace(terms, others=terms.others | {name: value})

    def _measured(self, scores: Scores) -> Penalty:
        """Let the regulariser measure on the target, of which the model in training holds everything."""
        factors = scores.factors
        with scores.target_model() as model:
            layers = {name: model.get_submodule(f"base_model.model.{name}") for name in factors}
            sets = (self.records.forget, self.records.retain)
            moments = moments_measure(model, *sets, lambda _: None, layers)
            penalty: Penalty = self.regulariser(factors=factors, moments=moments)
        if not callable(penalty):
            raise UserError(
                f"regulariser={self.regulariser.name}: {self.regulariser.target} returned {penalty!r:.80}; "
                "it returns a function of A and B, see loku_exp.losses.regularisers"
            )
        return penalty
