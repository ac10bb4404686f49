"""Read a published TOFU evaluation log (``eval_log_aggregated.json``, or OpenUnlearning's) and score it.

Top level of the former: four log files; in each, metrics by row, as a dictionary by index or as a list.
The very functions of the tasks do the arithmetic. Source of the format: locuslab/tofu,
``evaluate_util.py``; of the other one see `loku_exp.evaluation.tofu.openunlearning_log`.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from loku_exp.data.json_values import read_json, shortened
from loku_exp.data.records import Example
from loku_exp.errors import DataError
from loku_exp.evaluation.suite import Evaluation
from loku_exp.evaluation.tofu import metrics, openunlearning_log
from loku_exp.evaluation.tofu.judge import aggregate
from loku_exp.evaluation.tofu.log_rows import PublishedLog, PublishedRow, asked, check_same_rows

FILES = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "authors": "eval_real_author_wo_options.json",
    "facts": "eval_real_world_wo_options.json",
}
TruthRatio = Literal["geometric", "arithmetic"]
_Loss = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]
METRICS: dict[str, Any] = {
    "avg_gt_loss": _Loss,
    "num_token_gt": _Count,
    "avg_paraphrased_loss": _Loss,
    "num_token_paraphrased": _Count,
    "average_perturb_loss": Annotated[list[_Loss], Field(min_length=1)],
    "num_token_perturb": Annotated[list[_Count], Field(min_length=1)],
    "rougeL_recall": Annotated[float, Field(ge=0, le=1)],
    "generated_text": Annotated[list[str], Field(min_length=3, max_length=3)],
}
"""By metric that is needed: what a row of it holds."""
TOKENS = ("num_token_gt", "num_token_paraphrased", "num_token_perturb")  # only TOFU's own has them


def read_log(path: str | Path) -> PublishedLog:
    """Return the rows of each set.

    Raises:
        DataError: not such a log; says what is missing.
    """
    file = Path(os.path.expanduser(path))
    content = read_json(file, finite=False)  # theirs may overflow elsewhere
    if openunlearning_log.is_openunlearning(content):
        tables = openunlearning_log.tables_of(content, str(path))
        return {
            name: _rows(part, f"{path}, set '{name}'", tokens=False)
            for name, part in tables.items()
        }
    log = {}
    for name, part in FILES.items():
        if not isinstance(content, dict) or part not in content:
            raise DataError(f"{path} is not a TOFU evaluation log: it lacks '{part}'")
        log[name] = _rows(content[part], f"{path}, '{part}'")
    return log


def evaluation_of_log(
    path: str, sets: dict[str, list[Example]], truth_ratio: TruthRatio
) -> Evaluation:
    """Return what a published log says of the very rows that are evaluated here.

    Raises:
        DataError: it is no such log, or of other rows.
    """
    content = read_log(path)
    check_same_rows(content, sets, path)
    examples = [
        {
            "set": name,
            "row": record.row,
            "group": record.group,
            "tokens": record.answer.num_labels,
            "loss": row.loss,
            "generation": row.generation,
            **_scores(name, row, truth_ratio),
        }
        for name, rows in content.items()
        for record, row in zip(sets[name], rows, strict=True)
    ]
    counts = {name: len(rows) for name, rows in content.items()}
    return Evaluation(aggregate(examples), counts, examples)


def score_log(log: PublishedLog) -> dict[str, float]:
    """Return the metrics of a log under the names of our own results; geometric truth ratio."""
    return aggregate([
        {"set": name, "row": row.row, **_scores(name, row, "geometric")}
        for name, rows in log.items() for row in rows
    ])  # fmt: skip


def _scores(name: str, row: PublishedRow, truth_ratio: TruthRatio) -> dict[str, float]:
    """Return what a row of a set amounts to, under the names of our own rows."""
    choice, wrong = name in ("authors", "facts"), row.wrong_losses
    compared = metrics.arithmetic_log_ratio if truth_ratio == "arithmetic" else metrics.log_ratio
    return {
        "prob": metrics.choice_probability(row.loss, wrong)
        if choice
        else metrics.probability(row.loss),
        "truth_ratio": metrics.truth_ratio(
            compared(row.paraphrase_loss, wrong), forget=name == "forget"
        ),
        "rouge": row.rouge,
        "log_ratio": metrics.log_ratio(row.paraphrase_loss, wrong),
    }


def compare_logs(log: PublishedLog, reference: PublishedLog) -> dict[str, float]:
    """Return forget quality, its distance, the shift, and the number of forget rows.

    Raises:
        DataError: the two logs are about different questions.
    """
    ours, theirs = log["forget"], reference["forget"]
    if bool(ours[0].tokens) != bool(theirs[0].tokens):
        raise DataError(
            "one log is of OpenUnlearning, the other of TOFU's authors; their templates differ, so their "
            "ratios do not compare: take both of one kind"
        )
    questions, due = ([asked(row) for row in rows] for rows in (ours, theirs))
    if questions != due:
        same = len(set(questions) & set(due))
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


def _rows(part: Any, place: str, *, tokens: bool = True) -> list[PublishedRow]:
    """Return the rows of one file of a log.

    Raises:
        DataError: it is no table, or lacks a metric, or one of a row, or one is not what it must be.
    """
    if not isinstance(part, dict):
        raise DataError(f"{place} is not a table of metrics by row")
    needed = [metric for metric in METRICS if tokens or metric not in TOKENS]
    missing = [metric for metric in needed if metric not in part]
    if missing:
        raise DataError(f"{place} lacks {', '.join(missing)}")
    columns = {metric: _by_row(part[metric], metric, place) for metric in needed}
    rows = sorted(set().union(*columns.values()))
    for metric, column in columns.items():
        lost = [row for row in rows if row not in column]
        if lost:
            raise DataError(f"{place} has no {metric} for row {lost[0]}")
    if not rows:
        raise DataError(f"{place} has no rows")
    return [_row(columns, row) for row in rows]


def _by_row(values: Any, metric: str, place: str) -> dict[int, Any]:
    """Return the values of a metric by row, each of the kind that `METRICS` says."""
    if not isinstance(values, dict | list):
        raise DataError(
            f"{place} is not a table of metrics by row: '{metric}' is {shortened(values)}"
        )
    items = list(values.items() if isinstance(values, dict) else enumerate(values))
    numbered = {int(row): value for row, value in items if re.fullmatch("[0-9]{1,9}", str(row))}
    if len(numbered) < len(items):
        raise DataError(f"{place}, '{metric}': rows must be different numbers from 0")
    kind = TypeAdapter(METRICS[metric], config=ConfigDict(strict=True))
    for row, value in numbered.items():
        try:
            kind.validate_python(value)
        except ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Input ")
            raise DataError(
                f"{place}, '{metric}', row {row}: {shortened(value)} is wrong ({rule})"
            ) from error
    return numbered


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
        tokens=_tokens(columns, row),
        rouge=of("rougeL_recall"),
    )


def _tokens(columns: dict[str, dict[int, Any]], row: int) -> tuple[int, ...]:
    if TOKENS[0] not in columns:
        return ()
    answer, paraphrase, wrong = (columns[metric][row] for metric in TOKENS)
    return (answer, paraphrase, *wrong)
