"""Read OpenUnlearning's TOFU log (``TOFU_EVAL.json``) as the tables of TOFU's own.

Top level: metrics by name, e.g. ``forget_Q_A_Prob``; in each, ``value_by_index`` holds a row's values:
``prob`` and ``avg_loss`` (lists where there are several answers), or ``rougeL_recall``, ``input``,
``ground_truth`` and ``generation``. Source of the format: locuslab/open-unlearning,
``src/evals/metrics/memorization.py``. It has neither template nor token counts, and its stored truth ratio
(our 1/R) has 1e-10 in the denominator; ratios are made of the losses here.
"""

from typing import Any

from loku_exp.errors import DataError

PREFIXES = {"forget": "forget", "retain": "retain", "authors": "ra", "facts": "wf"}
_COLUMNS = {
    "avg_gt_loss": ("Q_A_Prob", "avg_loss"),
    "avg_paraphrased_loss": ("Q_A_PARA_Prob", "avg_loss"),
    "average_perturb_loss": ("Q_A_PERT_Prob", "avg_loss"),
    "rougeL_recall": ("Q_A_ROUGE", "rougeL_recall"),
}
_TEXTS = ("input", "generation", "ground_truth")


def is_openunlearning(content: Any) -> bool:
    """Return whether a JSON value is laid out like such a log."""
    return isinstance(content, dict) and any(
        isinstance(part, dict) and ("value_by_index" in part or "agg_value" in part)
        for part in content.values()
    )


def tables_of(content: dict[str, Any], place: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return by set TOFU's metrics by row, values unchecked and token counts absent.

    Args:
        content: of the file.
        place: the file, for messages.

    Raises:
        DataError: a metric, its rows, or a value of a row is not there.
    """
    tables = {}
    for name, prefix in PREFIXES.items():
        table = {
            ours: _column(content, _metric(prefix, theirs), field, place)
            for ours, (theirs, field) in _COLUMNS.items()
        }
        texts = [_column(content, _metric(prefix, "Q_A_ROUGE"), field, place) for field in _TEXTS]
        rows = texts[0]  # a column of the same metric has the same rows
        table["generated_text"] = {row: [text[row] for text in texts] for row in rows}
        tables[name] = table
    return tables


def _metric(prefix: str, metric: str) -> str:
    """Return the name of a set's metric; authors and facts have no paraphrase, the answer stands for it."""
    plain = prefix in ("ra", "wf") and metric == "Q_A_PARA_Prob"
    return f"{prefix}_{'Q_A_Prob' if plain else metric}"


def _column(content: dict[str, Any], metric: str, field: str, place: str) -> dict[str, Any]:
    part = content.get(metric)
    rows = part.get("value_by_index") if isinstance(part, dict) else None
    if not isinstance(rows, dict) or not rows:
        raise DataError(
            f"{place} has no rows of '{metric}' (value_by_index); give the TOFU_EVAL.json of an evaluation "
            "of all four sets, not its summary"
        )
    for row, values in rows.items():
        if not isinstance(values, dict) or field not in values:
            raise DataError(f"{place}, '{metric}': row {row} has no '{field}'")
    return {row: values[field] for row, values in rows.items()}
