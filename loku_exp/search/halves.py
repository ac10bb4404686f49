"""Metrics of half of the evaluated rows: one half to choose by, the other to report.

A setting chosen by the numbers it is reported with looks better than it is. So the groups of each set
(authors, parts of a corpus) are split once, by a seed; what belongs together stays together.
"""

import random
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from loku_exp.evaluation.tofu import metrics

Example = dict[str, Any]
NOT_METRICS = ("row", "tokens", "log_ratio")


def split(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Return the examples of the selection half and of the reported half, of all models alike.

    Args:
        examples: rows of ``examples.jsonl``.
        seed: of the split; the same rows are split the same way in every run.

    A set of a single group is split by rows.
    """
    chosen = {}
    for name in sorted({example["set"] for example in examples}):
        rows = [example for example in examples if example["set"] == name]
        by_group = len({example["group"] for example in rows if "group" in example}) > 1
        key = "group" if by_group else "row"
        units = sorted({example[key] for example in rows if key in example})
        random.Random(f"{seed}/{name}").shuffle(units)
        chosen[name] = key, set(units[: len(units) // 2])
    group_of = {(e["set"], e["row"]): e["group"] for e in examples if "group" in e}

    def selected(example: Example) -> bool:
        key, units = chosen[example["set"]]
        if key == "row":
            return example["row"] in units
        return group_of[example["set"], example["row"]] in units  # a published log has no groups

    halves: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        halves[0 if selected(example) else 1].append(example)
    return halves


def metrics_of(examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """Return the metrics of each model over these rows, named as in ``metrics.json``.

    Args:
        examples: rows of ``examples.jsonl``, of some or all groups.

    Means over rows; model utility and the comparisons with the reference by the formulas of
    `loku_exp.evaluation.tofu.metrics`. What needs other rows (abilities) is absent.
    """
    roles = dict.fromkeys(example["model"] for example in examples)
    found = {role: _means([e for e in examples if e["model"] == role]) for role in roles}
    reference = _log_ratios(examples, "reference")
    for role, values in found.items():
        nine = [f"{s}_{m}" for s in metrics.UTILITY_SETS for m in metrics.UTILITY_METRICS]
        if values.keys() >= set(nine):
            values["model_utility"] = metrics.model_utility([values[name] for name in nine])
            values["model_utility_retain"] = metrics.model_utility(
                [values[f"retain_{metric}"] for metric in metrics.UTILITY_METRICS]
            )
        ratios = _log_ratios(examples, role)
        if role != "reference" and ratios and ratios.keys() == reference.keys():
            ours, theirs = list(ratios.values()), [reference[row] for row in ratios]
            quality, distance = metrics.forget_quality(ours, theirs)
            shift = metrics.forget_shift(ours, theirs)
            values |= {
                "forget_quality": quality,
                "forget_ks": distance,
                "forget_shift": shift,
            }
    return found


def _means(examples: list[Example]) -> dict[str, float]:
    columns: dict[str, list[float]] = {}
    for example in examples:
        for name, value in example.items():
            if isinstance(value, (int, float)) and name not in NOT_METRICS:
                columns.setdefault(f"{example['set']}_{name}", []).append(value)
    return {name: fmean(values) for name, values in columns.items()}


def _log_ratios(examples: Sequence[Example], role: str) -> dict[int, float]:
    return {
        example["row"]: example["log_ratio"]
        for example in examples
        if example["model"] == role and example["set"] == "forget" and "log_ratio" in example
    }
