"""What an objective sees of a batch: a lazy scorer of its labelled tokens."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from loku_exp.data.batches import Padded
from loku_exp.inits.interface import Factors
from loku_exp.losses.terms import cross_entropy
from loku_exp.models.head import (
    ClosedForm,
    Term,
    apply_term,
    hidden_before_head,
    hidden_by_layer,
    label_positions,
    logits_of,
)

TargetTerm = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits (n, V), labels (n,) and the target's logits (n, V) to values (n,), row by row."""
Context = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class LossTerms:
    """The value of an objective on one micro-batch.

    Attributes:
        forget: loss on the forget batch, a scalar.
        retain: loss on the retain batch, or None.
        retain_weight: its coefficient.
        others: further terms by name, e.g. a regulariser, already weighted.
        reaches_all: whether every trained matrix of an adapter is to get a gradient; False for a loss of
            the first layers alone.
    """

    forget: Tensor
    retain: Tensor | None = None
    retain_weight: float = 1.0
    others: dict[str, Tensor] = field(default_factory=dict)
    reaches_all: bool = True

    @property
    def total(self) -> Tensor:
        """Return what is minimised: forget + retain_weight * retain + the others."""
        total = self.forget
        if self.retain is not None:
            total = total + self.retain_weight * self.retain
        for value in self.others.values():
            total = total + value
        return total

    def by_name(self) -> dict[str, Tensor]:
        """Return the terms by the name they are logged under."""
        retain = {} if self.retain is None else {"retain": self.retain}
        return {"forget": self.forget} | retain | self.others


class Scores:
    """Scores one batch, running the model when first asked and only once.

    Args:
        model: the model in training.
        batch: the batch to score.
        plain: compute all logits and select (the slow, obvious way) instead of chunking.
        chunk_rows: see `apply_term`.
        as_target: a context in which `model` computes the target's function without gradient.
        context: the context this object computes in.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Padded,
        *,
        plain: bool = False,
        chunk_rows: int | None = None,
        as_target: Context | None = None,
        context: Context = nullcontext,
    ):
        self._model = model
        self._batch = batch
        self._plain = plain
        self._chunk_rows = chunk_rows
        self._as_target = as_target
        self._context = context
        self._rows, self._columns = label_positions(batch)

    @property
    def labels(self) -> Tensor:
        """The labelled tokens, (n,) int64, row by row."""
        return self._batch["labels"][self._rows, self._columns + 1]

    @property
    def mask(self) -> Tensor:
        """The positions whose next token is labelled, (B, T) bool."""
        mask = self._batch["labels"].new_zeros(self._batch["labels"].shape, dtype=torch.bool)
        mask[self._rows, self._columns] = True
        return mask

    def token_term(self, term: Term | ClosedForm) -> Tensor:
        """Return the term of each labelled token, (n,) fp32, differentiable.

        Args:
            term: maps logits (m, V) fp32 and labels (m,) to (m,); row by row.
        """
        return self._each(term, self.labels)

    def target_term(self, term: TargetTerm) -> Tensor:
        """Return a term that reads the target's logits too, of each labelled token, (n,) fp32.

        Differentiable in the model's logits alone. The target's hidden states are kept, its logits made
        chunk by chunk beside the model's.
        """
        target, labels, device = self.reference, self.labels, self.labels.device.type
        rows = torch.arange(len(labels), device=labels.device)
        target.logits(rows[:1])  # runs the model now, not inside a chunk
        cast = torch.is_autocast_enabled(device)  # which is off inside a chunk

        def of_rows(logits: Tensor, some: Tensor) -> Tensor:
            with torch.autocast(device, torch.get_autocast_dtype(device), enabled=cast):
                of_target = target.logits(some)
            return term(logits, labels[some], of_target)

        return self._each(of_rows, rows)

    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits (m, V) of some of the labelled tokens, fp32; for a few rows at a time.

        Args:
            rows: (m,) int64, places in `labels`.
        """
        with self._context():
            if self._plain:
                return self._logits[rows]
            head = self._model.get_output_embeddings()  # type: ignore[operator]
            return logits_of(self._hidden[rows], head)

    def logprobs(self) -> Tensor:
        """Return log p of each labelled token, (n,), differentiable."""
        return -self.token_term(cross_entropy)

    def mean(self, term: Term | ClosedForm) -> Tensor:
        """Return the mean of a term over the labelled tokens.

        Of the micro-batch (official) or of the whole update, as the batch's denominator says.
        """
        return self.mean_of(self.token_term(term))

    def mean_of(self, values: Tensor, skipped: int | Tensor = 0) -> Tensor:
        """Return the mean of values of labelled tokens, (n,), as `mean` does.

        Args:
            values: a value a token; 0 where it is skipped.
            skipped: how many tokens of this micro-batch are.
        """
        return values.sum() / (self._batch["denominator"] - skipped)

    @property
    def places(self) -> Tensor:
        """Which labelled token of its sequence each one is, from 0, (n,) int64."""
        return self.mask.cumsum(dim=1)[self._rows, self._columns] - 1

    def sequence_means(self, values: Tensor) -> Tensor:
        """Average values of labelled tokens, (n,), over each sequence, (B,)."""
        return self.sequence_sums(values) / self.sequence_sums(torch.ones_like(values))

    def sequence_sums(self, values: Tensor) -> Tensor:
        """Sum values of labelled tokens, (n,), over each sequence, (B,)."""
        return values.new_zeros(len(self._batch["labels"])).index_add(0, self._rows, values)

    def hidden(self, layer: int) -> Tensor:
        """Return hidden states (B, T, d) after a layer, 0 the embedding.

        Layers are counted as transformers does. The first call costs a forward pass without the head.
        """
        return self._states[layer]

    @property
    def num_layers(self) -> int:
        """How many layers the model has; asking costs what `hidden` costs."""
        return len(self._states) - 1

    @cached_property
    def reference(self) -> "Scores":
        """The same batch scored by the target model, as it was before unlearning; no gradient."""
        if self._as_target is None:
            raise ValueError("this loss compares with the target model; pass as_target to Scores")
        return Scores(
            self._model,
            self._batch,
            plain=self._plain,
            chunk_rows=self._chunk_rows,
            context=self._as_target,
        )

    @property
    def factors(self) -> dict[str, Factors]:
        """A (rank, in) and B (out, rank) of each adapted layer as they are now, to differentiate in."""
        found = {}
        for path, module in self._model.named_modules():
            if isinstance(module, LoraLayer):
                name = path.removeprefix("base_model.model.")
                parts: Any = (module.lora_A, module.lora_B)
                a, b = (part["default"].weight for part in parts)
                found[name] = Factors(name, a, b)
        return found

    @contextmanager
    def target_model(self) -> Iterator[nn.Module]:
        """Give the model itself, which inside computes the target's function, without gradient."""
        if self._as_target is None:
            raise ValueError("the target model is asked for; pass as_target to Scores")
        with self._as_target():
            yield self._model

    def _each(self, term: Term | ClosedForm, index: Tensor) -> Tensor:
        """Return a term of each labelled token, told which by `index`, (n,)."""
        with self._context():
            if self._plain:
                return term(self._logits, index)
            head = self._model.get_output_embeddings()  # type: ignore[operator]
            return apply_term(term, self._hidden, index, head, self._chunk_rows)

    @cached_property
    def _states(self) -> tuple[Tensor, ...]:
        with self._context():
            return hidden_by_layer(self._model, self._batch)

    @cached_property
    def _hidden(self) -> Tensor:
        return hidden_before_head(self._model, self._batch)[self._rows, self._columns]

    @cached_property
    def _logits(self) -> Tensor:
        logits = self._model(
            input_ids=self._batch["input_ids"],
            attention_mask=self._batch["attention_mask"],
            use_cache=False,
        ).logits
        return logits[self._rows, self._columns].float()
