"""The forget sets of earlier requests, asked again beside a suite: what a later one brings back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loku_exp.data.records import Example
from loku_exp.evaluation.catalogue import Metric
from loku_exp.evaluation.lm.answers import TokenScores
from loku_exp.evaluation.memorisation import exact_memorisation
from loku_exp.evaluation.suite import Depth, Evaluation, Metrics, Row, Suite, row_means
from loku_exp.evaluation.tasks import Request, RowTask
from loku_exp.evaluation.tofu.metrics import probability

EARLIER = "earlier"
QUANTITIES = {"prob": "probability", "em": "share of first guesses"}


def with_earlier(suite: Suite, rows: Sequence[Example]) -> Suite:
    """Return a suite that also asks about rows that an earlier run was to forget.

    Measured are the probability of the labelled text, exp(-mean loss), in (0, 1], and the share of its
    tokens that are the model's first guess, in [0, 1]; both are defined for answers and for plain texts. No
    arrow points to a reference: it may have seen these rows.

    Args:
        suite: of a dataset.
        rows: numbered through.
    """

    def tasks(reference: Evaluation | None, depth: Depth) -> list[Any]:
        return [*suite.tasks(reference, depth), _task(rows)]

    def aggregate(examples: Sequence[Row], reference: Sequence[Row] | None = None) -> Metrics:
        own = [row for row in examples if row["set"] != EARLIER]
        return suite.aggregate(own, reference) | row_means(
            [row for row in examples if row["set"] == EARLIER]
        )

    words = [
        Metric(
            name=f"{EARLIER}_{name}", label=f"earlier forget set, {label}", better="none",
            unit="group", summary=name == "prob", forget=True,
        )
        for name, label in QUANTITIES.items()
    ]  # fmt: skip
    return replace(suite, tasks=tasks, aggregate=aggregate, catalogue=[*suite.catalogue, *words])


def _task(rows: Sequence[Example]) -> RowTask:
    def ask(row: Example) -> list[Request]:
        return [("token_scores", (row.question or f"row {row.row}", row.answer))]

    def prob(_: Example, answers: list[TokenScores]) -> float:
        return probability(answers[0].loss)

    def em(_: Example, answers: list[TokenScores]) -> float:
        return exact_memorisation(answers[0].greedy)

    return RowTask(EARLIER, rows, ask, {"prob": prob, "em": em})
