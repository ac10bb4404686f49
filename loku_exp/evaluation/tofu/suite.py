"""TOFU's evaluation as lm-eval tasks: four sets, forget quality, model utility.

Per example: the loss of the answer, of its paraphrase and of the wrong answers, and one greedy
generation. Formulas: `loku_exp.evaluation.tofu.metrics`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, Literal, cast

from lm_eval.api.group import Group
from transformers import PreTrainedTokenizerBase

from loku_exp.data.records import Example, Records
from loku_exp.evaluation.lm.answers import TokenScores
from loku_exp.evaluation.membership import with_membership
from loku_exp.evaluation.memorisation import answer_strength, exact_memorisation
from loku_exp.evaluation.rouge import rouge_recall
from loku_exp.evaluation.suite import Depth, Evaluation, Suite
from loku_exp.evaluation.tasks import OwnTask, Request
from loku_exp.evaluation.tofu import metrics
from loku_exp.evaluation.tofu.judge import CATALOGUE, aggregate, judge_tofu, log_ratios
from loku_exp.evaluation.tofu.published_log import evaluation_of_log
from loku_exp.evaluation.tofu.stop_check import at_reference, meeting_problems
from loku_exp.runtime.knobs import Count, MembershipScore, Rows

HOLDOUT = "holdout"
FORGET = "forget"  # the set whose truth ratio is largest where true and wrong are equally likely
CHOICE_SETS = ("authors", "facts")  # their probability is that of a choice among four answers
LogRatios = dict[int, float]
"""log R by row id of the forget set: what forget quality compares."""


@dataclass(frozen=True)
class Scoring:
    """How answers are scored; the settings are those of ``conf/evaluation/tofu.yaml``."""

    truth_ratio: Literal["geometric", "arithmetic"]
    max_tokens: int
    decode: Callable[[list[int]], str]


def tofu_suite(
    records: Records,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows: Rows,
    truth_ratio: Literal["geometric", "arithmetic"],
    max_tokens: Count,
    membership: list[MembershipScore] | None = None,
) -> Suite:
    """Return TOFU's suite over these records.

    Args:
        records: their evaluation sets are ``forget`` and, as far as there are any, ``retain``,
            ``authors``, ``facts``, and the ``holdout`` of membership inference.
        tokenizer: the model's.
        rows: first rows of each set, or ``all``. Published logs have 300.
        truth_ratio: ``geometric`` as published, or ``arithmetic``.
        max_tokens: prompt and generation together.
        membership: scores of membership inference, where there is a holdout.
    """
    last = None if rows == "all" else int(rows)
    sets = {name: of_set[:last] for name, of_set in records.evaluation.items()}
    holdout = sets.pop(HOLDOUT, [])

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)  # type: ignore[return-value]

    scoring = Scoring(truth_ratio, max_tokens, decode)
    suite = Suite(
        tasks=partial(_tasks, sets, scoring),
        catalogue=CATALOGUE,
        judge=judge_tofu,
        protocol={
            "truth_ratio": truth_ratio,
            "max_tokens": max_tokens,
            "scoring": "answer and end-of-text labelled, loss per token",
        },
        described=[f"truth ratio {truth_ratio}"],
        aggregate=aggregate,
        read_log=partial(evaluation_of_log, sets=sets, truth_ratio=truth_ratio),
        problems=partial(_problems, sets, max_tokens),
        meet=partial(at_reference, sets.get(FORGET, [])),
        stop_problems=partial(meeting_problems, sets.get(FORGET, [])),
    )
    return with_membership(suite, sets.get(FORGET, []), holdout, membership or [])


def _tasks(
    sets: dict[str, list[Example]], scoring: Scoring, reference: Evaluation | None, depth: Depth
) -> list[Any]:
    """Return lm-eval tasks: one a set, and the group that makes model utility of them.

    Below full depth nothing is generated, so there is no ROUGE and no model utility; a brief one asks
    for the probability of the forget and retain answers alone.
    """
    if depth == "brief":
        return [
            TofuTask(name, rows, scoring, None, generate=False, compare=False)
            for name, rows in sets.items()
            if name not in CHOICE_SETS
        ]
    ratios = log_ratios(reference.examples) or None if reference else None
    tasks = {
        name: TofuTask(
            name, rows, scoring, ratios if name == FORGET else None, generate=depth == "full"
        )
        for name, rows in sets.items()
    }
    if depth != "full" or not set(metrics.UTILITY_SETS) <= tasks.keys():
        return list(tasks.values())
    utility = ModelUtility("model_utility")
    for name in metrics.UTILITY_SETS:
        utility.add(tasks.pop(name))
    return [*tasks.values(), utility]


def _problems(sets: dict[str, list[Example]], max_tokens: int, max_length: int) -> list[str]:
    """Return what does not fit: every prompt must leave room to answer, in the model's context."""
    longest = max(len(record.prompt) for rows in sets.values() for record in rows)
    if max_tokens > max_length:
        return [
            f"evaluation.max_tokens={max_tokens} exceeds the model's context of {max_length} "
            "tokens; set it to at most that"
        ]
    if max_tokens <= longest:
        return [
            f"evaluation.max_tokens={max_tokens} counts prompt and generation together, and the "
            f"longest prompt alone has {longest} tokens; set it to more"
        ]
    return []


class TofuTask(OwnTask):
    """One evaluation set.

    Args:
        name: the set.
        rows: its records.
        scoring: its settings.
        reference: log R of the reference by row id, for forget quality.
        generate: whether to generate and score with ROUGE.
        compare: whether to score paraphrases and wrong answers as well.

    Without paraphrases and wrong answers of all rows there are no truth ratios.
    """

    def __init__(
        self,
        name: str,
        rows: list[Example],
        scoring: Scoring,
        reference: LogRatios | None,
        *,
        generate: bool,
        compare: bool = True,
    ):
        self.of = name  # the task itself may be renamed
        self.rows = {record.row: record for record in rows}
        self.scoring = scoring
        self.reference = reference
        self.generate = generate
        self.forget, self.choice = name == FORGET, name in CHOICE_SETS
        self.compared = compare and all(
            {"paraphrase", "wrong"} <= record.alternatives.keys() for record in rows
        )
        aggregations: dict[str, Any] = {"prob": fmean}
        if not self.choice:
            aggregations |= {"em": fmean, "strength": fmean}
        if self.compared:
            aggregations["truth_ratio"] = fmean
        if generate:
            aggregations["rouge"] = fmean
        if reference is not None:
            aggregations |= _comparisons(reference)
        documents = {row: (record.question, record.reference) for row, record in self.rows.items()}
        super().__init__(name, documents, aggregations)

    def requests(self, row: int) -> list[Request]:
        """Ask for the scores of all answers, and for one generation."""
        record = self.rows[row]
        texts = [record.answer]
        if self.compared:
            texts += [*record.alternatives["paraphrase"], *record.alternatives["wrong"]]
        asked: list[Request] = [("token_scores", (record.question, text)) for text in texts]
        if self.generate:
            prompt = (record.question, record.prompt, self.scoring.max_tokens)
            asked.append(("generate_ids", prompt))
        return asked

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """Turn the answers about one document into its metrics."""
        record = self.rows[doc["row"]]
        scores: list[TokenScores] = [
            result for result in results if isinstance(result, TokenScores)
        ]
        answer, *others = (score.loss for score in scores)
        example: dict[str, Any] = {"row": record.row, "group": record.group}
        example |= {"tokens": len(scores[0].logprobs), "loss": answer}
        values: dict[str, Any] = {"prob": metrics.probability(answer)}
        if not self.choice:
            greedy = scores[0].greedy
            values |= {"em": exact_memorisation(greedy), "strength": answer_strength(greedy)}
        if self.compared:
            paraphrase, *wrong = others
            if self.choice:
                values["prob"] = metrics.choice_probability(answer, wrong)
            log_r = example["log_ratio"] = metrics.log_ratio(paraphrase, wrong)
            arithmetic = self.scoring.truth_ratio == "arithmetic"
            ratio = metrics.arithmetic_log_ratio(paraphrase, wrong) if arithmetic else log_r
            values["truth_ratio"] = metrics.truth_ratio(ratio, forget=self.forget)
        if self.generate:
            example |= {"question": record.question, "answer": record.reference}
            example["generation"] = self.scoring.decode(results[-1])
            values["rouge"] = rouge_recall(record.reference, example["generation"])
        example |= values
        if self.reference is not None:
            compared = record.row, example["log_ratio"]
            values |= dict.fromkeys(_comparisons(self.reference), compared)
        return values | {"n": example}  # aggregated to a count; the samples keep the example


class ModelUtility(Group):
    """The harmonic mean of nine numbers: probability, ROUGE and truth ratio on three sets."""

    @property
    def has_aggregation(self) -> bool:
        """Tell lm-eval that this group has metrics of its own."""
        return True

    def aggregate(self, task_metrics: dict[str, Any]) -> Any:
        """Return model utility, and the same of the retain set alone."""
        nine = {
            task.of: [
                task_metrics[task.task_name][f"{name},none"] for name in metrics.UTILITY_METRICS
            ]
            for task in cast(Iterable[TofuTask], self)
        }
        return {
            "alias": self.name,
            "name": self.name,
            "model_utility,none": metrics.model_utility(
                [x for three in nine.values() for x in three]
            ),
            "model_utility_retain,none": metrics.model_utility(nine["retain"]),
        }


def _comparisons(reference: LogRatios) -> dict[str, Callable[[list[tuple[int, float]]], float]]:
    """Return aggregations over (row, log R) that compare with the reference on the same rows."""

    def pairs(values: list[tuple[int, float]]) -> tuple[list[float], list[float]]:
        return [value for _, value in values], [reference[row] for row, _ in values]

    return {
        "quality": lambda values: metrics.forget_quality(*pairs(values))[0],
        "ks": lambda values: metrics.forget_quality(*pairs(values))[1],
        "shift": lambda values: metrics.forget_shift(*pairs(values)),
    }
