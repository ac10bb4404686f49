"""Our own tasks, rows measured one by one, choices and cloze; means over groups; how texts are cut."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import datasets
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from loku_exp.data.records import IGNORED, Example, Sequence
from loku_exp.errors import DataError
from loku_exp.evaluation.lm.answers import TokenScores

Request = tuple[str, tuple[Any, ...]]
"""A request type and its arguments."""
Ask = Callable[[str, str], Request]
"""From context and continuation to the request that scores the continuation."""


class Option(NamedTuple):
    """A context and what may follow it; their texts are joined as they are."""

    context: str
    continuation: str


@dataclass(frozen=True)
class Question:
    """One document of a task.

    Attributes:
        row: number of its row in the file, from 0.
        options: two or more of which one is right; with one only, it is right if the model's greedy
            continuation.
        gold: index of the right option.
    """

    row: int
    options: tuple[Option, ...]
    gold: int = 0


def as_text(context: str, continuation: str) -> Request:
    """Ask with text, tokenised together as lm-eval does (`LM.loglikelihood`)."""
    return "loglikelihood", (context, continuation)


class OwnTask(ConfigurableTask):
    """A task over documents of our own: what lm-eval has to be told, and nothing else.

    Args:
        name: of the task.
        documents: by row; a document's text for people, and its reference.
        aggregations: by metric.
        lower_is_better: of the metrics.

    Raises:
        DataError: there are no documents.
    """

    VERSION = 1

    def __init__(
        self,
        name: str,
        documents: dict[int, tuple[str, str]],
        aggregations: dict[str, Any],
        lower_is_better: Iterable[str] = (),
    ):
        self.documents = documents
        if not documents:
            raise DataError(
                f"the evaluation set '{name}' has no rows; give it some, or leave it out"
            )
        super().__init__(
            config={
                "task": name,
                "output_type": "loglikelihood",  # of the four known ones; requests say what they are
                "test_split": "test",
                "doc_to_text": "question",
                "doc_to_target": "reference",
                "process_results": _unused,  # keeps lm-eval from looking the metrics up on the hub
                "metric_list": [
                    {
                        "metric": metric,
                        "aggregation": aggregation,
                        "higher_is_better": metric not in lower_is_better,
                    }
                    for metric, aggregation in {**aggregations, "n": len}.items()
                ],
            }
        )

    def download(self, *_: Any, **__: Any) -> None:
        """Make the documents."""
        documents = [
            {"row": row, "question": question, "reference": reference}
            for row, (question, reference) in self.documents.items()
        ]
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(documents)})

    def requests(self, row: int) -> list[Request]:
        """Return what to ask about a document."""
        raise NotImplementedError

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """Ask about one document."""
        return [
            Instance(kind, doc, arguments, idx=index, metadata=kwargs["metadata"])
            for index, (kind, arguments) in enumerate(self.requests(doc["row"]))
        ]


class RowTask(OwnTask):
    """The rows of an evaluation set, asked alike; each metric is the mean of a function of a row's answers.

    Args:
        name: of the set.
        rows: its records.
        ask: from a record to what is asked about it.
        measures: by metric, from a record and the answers, in the order they were asked, to a number.
    """

    def __init__(
        self,
        name: str,
        rows: Iterable[Example],
        ask: Callable[[Example], list[Request]],
        measures: dict[str, Callable[[Example, list[Any]], float]],
    ):
        self.rows = {record.row: record for record in rows}
        self.ask = ask
        self.measures = measures
        documents = {row: (record.question, record.reference) for row, record in self.rows.items()}
        super().__init__(name, documents, dict.fromkeys(measures, fmean))

    def requests(self, row: int) -> list[Request]:
        """Ask about one record."""
        return self.ask(self.rows[row])

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """Measure one record."""
        record = self.rows[doc["row"]]
        values = {name: float(of(record, results)) for name, of in self.measures.items()}
        return values | {"n": {"row": record.row, "group": record.group} | values}


class ChoiceTask(OwnTask):
    """Questions with options; metric ``acc``, the share of questions answered right.

    With several options the chosen one has the largest summed log-probability (no length
    normalisation; the first of equals). With one, it counts where all its tokens are greedy.

    Args:
        name: of the task.
        questions: at least one.
        ask: how an option is scored.
    """

    def __init__(self, name: str, questions: list[Question], ask: Ask):
        self.questions = {question.row: question for question in questions}
        self.ask = ask
        super().__init__(
            name,
            {
                row: (question.options[0].context, question.options[question.gold].continuation)
                for row, question in self.questions.items()
            },
            {"acc": fmean},
        )

    def requests(self, row: int) -> list[Request]:
        """Ask for the score of every option."""
        return [self.ask(*option) for option in self.questions[row].options]

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """Choose, and compare with the right option."""
        question = self.questions[doc["row"]]
        scores = [_sum_and_greedy(result) for result in results]
        sums = [logprob for logprob, _ in scores]
        chosen: int | None = sums.index(max(sums))
        if len(scores) == 1 and not scores[0][1]:
            chosen = None
        values = {"acc": float(chosen == question.gold)}
        example = {"row": question.row, "gold": question.gold, "chosen": chosen, "logprobs": sums}
        return values | {"n": example | values}


class Mean(Group):
    """A group whose one metric, named as the group, is the plain mean of a metric of its tasks.

    Args:
        name: of group and metric.
        tasks: its members.
        metric: what is averaged.
        required: task names without any of which there is no mean (the key is absent then).
    """

    def __init__(self, name: str, tasks: Iterable[Any], metric: str, required: Iterable[str]):
        super().__init__(name)
        self.metric = metric
        self.required = tuple(required)
        for task in tasks:
            self.add(task)

    @property
    def has_aggregation(self) -> bool:
        """Tell lm-eval that this group has a metric of its own."""
        return True

    def aggregate(self, task_metrics: dict[str, Any]) -> Any:
        """Return the mean where all required tasks were evaluated."""
        result = {"alias": self.name, "name": self.name}
        if all(name in self and name in task_metrics for name in self.required):
            values = [task_metrics[name][f"{self.metric},none"] for name in self.required]
            result[f"{self.name},none"] = fmean(values)
        return result


def joined(context: list[int], continuation: list[int], limit: int) -> Sequence:
    """Return context and labelled continuation, cut from the left to `limit` tokens.

    Raises:
        DataError: no context token would be left to predict the continuation's first token from.
    """
    if not context or not continuation or len(continuation) >= limit:
        raise DataError(
            f"a context of {len(context)} and a continuation of {len(continuation)} tokens cannot be "
            f"scored within {limit} tokens: both need at least one"
        )
    ids = (*context, *continuation)
    labels = (IGNORED,) * len(context) + tuple(continuation)
    return Sequence(ids[-limit:], labels[-limit:])


def _sum_and_greedy(result: Any) -> tuple[float, bool]:
    if isinstance(result, TokenScores):
        return sum(result.logprobs), all(result.greedy)
    logprob, greedy = result
    return logprob, bool(greedy)


def _unused(*_: Any) -> dict[str, Any]:
    return {}
