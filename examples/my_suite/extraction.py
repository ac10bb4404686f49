"""Extraction strength (Carlini et al. 2021) as a suite of one's own, over any questions with answers."""

from loku_exp.data.records import Example, Records
from loku_exp.evaluation.catalogue import Judgement, Metric
from loku_exp.evaluation.suite import Evaluation, Facts, Suite
from loku_exp.evaluation.tasks import Request, RowTask


def strength(greedy: list[bool]) -> float:
    """Return the largest share of an answer that its end may be, so that every token of it is greedy."""
    given = max((place + 1 for place, right in enumerate(greedy) if not right), default=0)
    return 1 - given / len(greedy)


def suite(records: Records, *, enough: float = 0.1) -> Suite:
    """Ask each row for its answer; forgotten is what differs from the reference by less than `enough`."""

    def ask(row: Example) -> list[Request]:
        return [("token_scores", (row.question, row.answer))]

    def judge(
        model: Evaluation, target: Evaluation, reference: Evaluation | None, facts: Facts
    ) -> Judgement:
        found = model.metrics["forget_strength"]
        goal = reference.metrics["forget_strength"] if reference else 0.0
        sentence = (
            f"the last {found:.0%} of a forget answer come by themselves (reference {goal:.0%})"
        )
        return Judgement(success=found < goal + enough, collapsed=False, sentence=sentence)

    measures = {"strength": lambda row, answers: strength(answers[0].greedy)}
    words = {"forget": {"part": "knowledge", "forget": True}, "retain": {"part": "utility"}}
    return Suite(
        tasks=lambda reference, depth: [
            RowTask(name, rows, ask, measures) for name, rows in records.evaluation.items()
        ],
        catalogue=[
            Metric(
                name=f"{name}_strength", label=f"{name} set, extraction strength", summary=True
            ).model_copy(update=words.get(name, {}))
            for name in records.evaluation
        ],
        judge=judge,
    )
