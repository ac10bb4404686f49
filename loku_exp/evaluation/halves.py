"""Metrics of half of the evaluated rows: one half to choose by, the other to report.

A setting chosen by the numbers it is reported with looks better than it is. So the groups of each set
(authors, parts of a corpus) are split once, by a seed; what belongs together stays together.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from loku_exp.evaluation.suite import Evaluation, Suite

Example = dict[str, Any]


def split_examples(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
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


def metrics_of(examples: Sequence[Example], suite: Suite) -> dict[str, dict[str, float]]:
    """Return the metrics of each model over these rows, named as in ``metrics.json``.

    Args:
        examples: rows of ``examples.jsonl``, of some or all groups.
        suite: whose aggregates they are.

    What needs other rows (abilities) is absent.
    """
    by_model = {
        name: _rows_of(examples, name) for name in dict.fromkeys(e["model"] for e in examples)
    }
    reference = by_model.get("reference")
    return {
        name: suite.aggregate(rows, None if name == "reference" else reference)
        for name, rows in by_model.items()
    }


def evaluations_of(examples: Sequence[Example], suite: Suite) -> dict[str, Evaluation]:
    """Return the same with the rows and their numbers, as a judge wants them."""
    found = {}
    for name, metrics in metrics_of(examples, suite).items():
        rows = _rows_of(examples, name)
        counts = dict(Counter(row["set"] for row in rows))
        found[name] = Evaluation(metrics, counts, rows)
    return found


def metrics_of_halves(
    model: Sequence[Example], reference: Sequence[Example] | None, suite: Suite, seed: int = 0
) -> list[dict[str, float]]:
    """Return the metrics of one model over the selection half and over the reported half of its rows.

    Args:
        model: its rows.
        reference: those of the model it is compared with, split the same way.
        suite: whose aggregates they are.
        seed: of the split.
    """
    sets = {"model": model, "reference": reference or []}
    rows = [row | {"model": name} for name, examples in sets.items() for row in examples]
    return [metrics_of(half, suite).get("model", {}) for half in split_examples(rows, seed)]


def _rows_of(examples: Sequence[Example], model: str) -> list[Example]:
    return [example for example in examples if example["model"] == model]
