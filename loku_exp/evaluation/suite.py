"""What an evaluation needs of a dataset: its tasks, and its own words for what they find."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, Protocol

from loku_exp.evaluation.catalogue import Judgement, Metric
from loku_exp.runtime.settings import MeetReference, StopRule

Depth = Literal["full", "before_stop", "reduced", "brief"]
"""How much is asked: everything; of a snapshot one epoch before a stop; of any other snapshot, without
generation; or only how well the forget and retain sets are known."""
Metrics = dict[str, float]
Row = dict[str, Any]
NO_QUANTITY = ("row", "tokens", "gold", "chosen")  # numbers of a row whose mean says nothing


@dataclass(frozen=True)
class Evaluation:
    """The results of one model.

    Attributes:
        metrics: value by name, ``<set>_<metric>`` or ``<task>_<metric>``; an absent metric is absent.
        counts: evaluated rows by set.
        examples: one row per evaluated example of our own tasks: ``set``, ``row`` and what was found.
    """

    metrics: Metrics
    counts: dict[str, int]
    examples: list[Row]


@dataclass(frozen=True)
class Facts:
    """What a judge may know beside numbers.

    Attributes:
        training: of the method's report, e.g. thresholds and epochs of a stop rule; of a model that was
            attacked, or is an earlier moment, the thresholds alone.
        weights: how the target's weights came about.
        before: metrics one epoch before the end, where they were measured.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "pretrained"
    before: Metrics | None = None


class Judge(Protocol):
    """Says of a model whether it forgot, what it kept, and whether it is broken."""

    def __call__(
        self, model: Evaluation, target: Evaluation, reference: Evaluation | None, facts: Facts
    ) -> Judgement:
        """Return the judgement."""


class Stop(Protocol):
    """A stop rule as it is asked while a model unlearns."""

    thresholds: dict[str, Any]
    """What it compares with, for the record."""

    def __call__(self, model: Any) -> "StopCheck":
        """Return what it finds of a model in evaluation mode."""


class StopCheck(Protocol):
    """What a stop rule found; a dataclass."""

    @property
    def forgotten(self) -> bool:
        """Whether training ends."""

    def values(self) -> dict[str, float]:
        """Return what was measured, by name."""


def row_means(examples: Sequence[Row], reference: Sequence[Row] | None = None) -> Metrics:
    """Return the mean of every number of the rows, by set; what a suite without aggregates needs."""
    columns: dict[str, list[float]] = {}
    for example in examples:
        for name, value in example.items():
            if isinstance(value, (int, float)) and name not in NO_QUANTITY:
                columns.setdefault(f"{example['set']}_{name}", []).append(value)
    return {name: fmean(values) for name, values in columns.items()}


def no_problems(_: Any) -> list[str]:
    """Find nothing wrong."""
    return []


@dataclass(frozen=True)
class Suite:
    """The tasks over the evaluation sets of a dataset, and its words.

    Attributes:
        tasks: from the evaluation of the reference (or None) and a depth to lm-eval tasks and groups.
        catalogue: its metrics, in the order of tables.
        judge: its judgement of a model.
        protocol: what a result must say about how it was scored, for programs.
        described: the same for people, a few words each.
        abilities: tasks that do not depend on the forget set; ``evaluation.limit`` cuts them.
        aggregate: from some of a model's rows (and the reference's) to its metrics; means by set.
        stop: makes its stop rule, from the recipe's and the target's evaluation; None: it has none.
        meet: makes the rule that ends at the reference's value of a metric, from the recipe's and the
            evaluations of target and reference; None: it has none.
        stop_problems: from the recipe's rule, of a kind that there is, to why it could not be made, known
            without an evaluation.
        read_log: reads a published evaluation log; None: it knows no such logs.
        problems: from the model's context length to what does not fit, a line each.
        requests: request types of its own; see `loku_exp.evaluation.requests`.
    """

    tasks: Callable[[Evaluation | None, Depth], list[Any]]
    catalogue: Sequence[Metric]
    judge: Judge
    protocol: dict[str, Any] = field(default_factory=dict)
    described: Sequence[str] = ()
    abilities: Sequence[Any] = ()
    aggregate: Callable[[Sequence[Row], Sequence[Row] | None], Metrics] = row_means
    stop: Callable[[StopRule, Evaluation], Stop] | None = None
    meet: Callable[[MeetReference, Evaluation, Evaluation], Stop] | None = None
    stop_problems: Callable[[Any], list[str]] = no_problems
    read_log: Callable[[str], Evaluation] | None = None
    problems: Callable[[int], list[str]] = no_problems
    requests: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
