"""Read a published TOFU evaluation log (``eval_log_aggregated.json``) and score it.

Top level: four log files; in each, metrics by row, as a dictionary by index or as a list. The very
functions of the tasks do the arithmetic. Source of the format: locuslab/tofu, ``evaluate_util.py``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from loku_exp.data.records import Example
from loku_exp.errors import DataError
from loku_exp.evaluation.suite import Evaluation
from loku_exp.evaluation.tofu import metrics

FILES = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "authors": "eval_real_author_wo_options.json",
    "facts": "eval_real_world_wo_options.json",
}
NEEDED = (
    "avg_gt_loss",
    "num_token_gt",
    "avg_paraphrased_loss",
    "num_token_paraphrased",
    "average_perturb_loss",
    "num_token_perturb",
    "rougeL_recall",
    "generated_text",
)


@dataclass(frozen=True)
class PublishedRow:
    """One example of a log; losses per token in nats, `tokens` as answer, paraphrase, wrong answers."""

    row: int
    prompt: str
    generation: str
    answer: str
    loss: float
    paraphrase_loss: float
    wrong_losses: tuple[float, ...]
    tokens: tuple[int, ...]
    rouge: float


PublishedLog = dict[str, list[PublishedRow]]


def read_log(path: str | Path) -> PublishedLog:
    """Return the rows of each set.

    Raises:
        DataError: not such a log; says what is missing.
    """
    file = Path(path).expanduser()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the evaluation log {path} ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path} is not json ({error})") from error
    log = {}
    for name, part in FILES.items():
        if not isinstance(content, dict) or part not in content:
            raise DataError(f"{path} is not a TOFU evaluation log: it lacks '{part}'")
        log[name] = _rows(content[part], f"{path}, '{part}'")
    return log


def evaluation_of_log(path: str, sets: dict[str, list[Example]]) -> Evaluation:
    """Return what a published log says of the very rows that are evaluated here.

    Raises:
        DataError: it is no such log, or of other rows.
    """
    content = read_log(path)
    check_same_rows(content, sets, path)
    examples = [
        {
            "set": name,
            "row": row.row,
            "tokens": row.tokens[0],
            "loss": row.loss,
            "log_ratio": ratio,
            "generation": row.generation,
        }
        for name, rows in content.items()
        for row, ratio in zip(rows, ratios_of_rows(rows).values(), strict=True)
    ]
    counts = {name: len(rows) for name, rows in content.items()}
    return Evaluation(score_log(content), counts, examples)


def score_log(log: PublishedLog) -> dict[str, float]:
    """Return the metrics of a log under the names of our own results; geometric truth ratio."""
    scores = {}
    for name, rows in log.items():
        choice = name in ("authors", "facts")
        scores[f"{name}_prob"] = fmean(
            metrics.choice_probability(row.loss, row.wrong_losses)
            if choice
            else metrics.probability(row.loss)
            for row in rows
        )
        scores[f"{name}_rouge"] = fmean(row.rouge for row in rows)
        scores[f"{name}_truth_ratio"] = fmean(
            metrics.truth_ratio(ratio, forget=name == "forget")
            for ratio in ratios_of_rows(rows).values()
        )
    scores["model_utility"] = metrics.model_utility(_nine(scores, metrics.UTILITY_SETS))
    scores["model_utility_retain"] = metrics.model_utility(_nine(scores, ("retain",)))
    return scores


def compare_logs(log: PublishedLog, reference: PublishedLog) -> dict[str, float]:
    """Return forget quality, its distance, the shift, and the number of forget rows.

    Raises:
        DataError: the two logs are about different questions.
    """
    ours, theirs = log["forget"], reference["forget"]
    if [row.prompt for row in ours] != [row.prompt for row in theirs]:
        same = len({row.prompt for row in ours} & {row.prompt for row in theirs})
        raise DataError(
            f"the forget sets differ: {len(ours)} and {len(theirs)} rows, {same} questions in common. "
            "Forget quality compares the same questions; take the reference of the same forget split "
            "(retain99 / 95 / 90 for forget01 / 05 / 10)"
        )
    pairs = list(ratios_of_rows(ours).values()), list(ratios_of_rows(theirs).values())
    quality, distance = metrics.forget_quality(*pairs)
    return {
        "forget_quality": quality,
        "forget_ks": distance,
        "forget_shift": metrics.forget_shift(*pairs),
        "forget_n": len(ours),
    }


def ratios_of_rows(rows: list[PublishedRow]) -> dict[int, float]:
    """Return log R by row."""
    return {row.row: metrics.log_ratio(row.paraphrase_loss, row.wrong_losses) for row in rows}


def check_same_rows(log: PublishedLog, records: dict[str, list[Example]], path: str) -> None:
    """Check that a log is about our rows: same questions and label counts, row by row.

    This catches another template, tokenizer, split or number of rows at once.

    Raises:
        DataError: with the first difference.
    """
    for name, rows in log.items():
        ours = records[name]
        if len(rows) != len(ours):
            raise DataError(
                f"reference.path={path} has {len(rows)} rows of '{name}', this run evaluates "
                f"{len(ours)}; set evaluation.rows={max(map(len, log.values()))} or take the log of "
                "this forget split"
            )
        for row, record in zip(rows, ours, strict=True):
            texts = [record.answer]
            for alternatives in record.alternatives.values():
                texts += alternatives
            tokens = tuple(text.num_labels for text in texts)
            if _squeezed(row.prompt) != _squeezed(record.question):
                found = f"asks {row.prompt!r}, ours asks {record.question!r}"
            elif row.tokens != tokens:
                found = f"has {row.tokens} labelled tokens, ours {tokens}"
            else:
                continue
            raise DataError(
                f"reference.path={path} is of other data: row {row.row} of '{name}' {found}; template, "
                "tokenizer and forget split must be those of this run"
            )


def _rows(part: Any, place: str) -> list[PublishedRow]:
    """Return the rows of one file of a log.

    Raises:
        DataError: it is no table, or lacks a metric, or one of a row.
    """
    if not isinstance(part, dict):
        raise DataError(f"{place} is not a table of metrics by row")
    missing = [metric for metric in NEEDED if metric not in part]
    if missing:
        raise DataError(f"{place} lacks {', '.join(missing)}")
    try:
        columns = {metric: _by_row(part[metric]) for metric in NEEDED}
        rows = sorted(set().union(*columns.values()))
        for metric, column in columns.items():
            lost = [row for row in rows if row not in column]
            if lost:
                raise DataError(f"{place} has no {metric} for row {lost[0]}")
        if not rows:
            raise DataError(f"{place} has no rows")
        return [_row(columns, row) for row in rows]
    except (TypeError, ValueError) as error:
        raise DataError(f"{place} is not a table of metrics by row ({error})") from error


def _by_row(values: Any) -> dict[int, Any]:
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return {int(row): value for row, value in items}


def _row(columns: dict[str, dict[int, Any]], row: int) -> PublishedRow:
    def of(metric: str) -> Any:
        return columns[metric][row]

    prompt, generation, answer = of("generated_text")
    return PublishedRow(
        row=row,
        prompt=prompt,
        generation=generation,
        answer=answer,
        loss=of("avg_gt_loss"),
        paraphrase_loss=of("avg_paraphrased_loss"),
        wrong_losses=tuple(of("average_perturb_loss")),
        tokens=(of("num_token_gt"), of("num_token_paraphrased"), *of("num_token_perturb")),
        rouge=of("rougeL_recall"),
    )


def _nine(scores: dict[str, float], sets: tuple[str, ...]) -> list[float]:
    return [scores[f"{name}_{metric}"] for name in sets for metric in metrics.UTILITY_METRICS]


def _squeezed(text: str) -> str:
    return " ".join(text.split())
