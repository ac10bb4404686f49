"""What a search looks for: the most of one metric where another is within a limit, on half of the rows."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loku_exp.errors import ConfigError
from loku_exp.results.verdict import collapsed
from loku_exp.search.halves import metrics_of, split


@dataclass(frozen=True)
class Objective:
    """What is searched for.

    Attributes:
        maximise: a metric of the unlearned model on the selection half.
        constrain: a metric that must be at most the limit there.
        at_most: the limit; None: the reference's value plus `margin`.
        margin: what a run may lie above the reference.
        split_seed: of the halves.
    """

    maximise: str
    constrain: str
    at_most: float | None
    margin: float
    split_seed: int


def judged(
    examples: list[dict[str, Any]], objective: Objective
) -> tuple[str | None, float | None, float | None]:
    """Return why a run is a failure or None, its value, and how far above the limit it is.

    Args:
        examples: its ``examples.jsonl``; only the selection half is looked at.
        objective: what is searched for.

    Raises:
        ConfigError: a metric of the objective is not among those of the half.
    """
    selection, _ = split(examples, objective.split_seed)
    found = metrics_of(selection)
    unlearned, reference = found["unlearned"], found.get("reference", {})
    values = unlearned[_known(objective.maximise, unlearned)]
    constrained = unlearned[_known(objective.constrain, unlearned)]
    if objective.at_most is not None:
        limit = objective.at_most
    elif objective.constrain in reference:
        limit = reference[objective.constrain] + objective.margin
    else:
        raise ConfigError(f"{objective.constrain} has no reference to compare with; add --at-most")
    generations = {
        role: [e.get("generation", "-") for e in selection if (e["model"], e["set"]) == (role, "retain")]
        for role in ("unlearned", "target")
    }  # fmt: skip
    collapse = collapsed(
        unlearned, found["target"], generations["unlearned"], generations["target"]
    )
    if collapse:
        return f"COLLAPSED ({collapse})", None, None
    if not (math.isfinite(values) and math.isfinite(constrained)):
        return f"{objective.maximise} is {values}, {objective.constrain} {constrained}", None, None
    return None, values, constrained - limit


def read_examples(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's ``examples.jsonl``."""
    with (folder / "examples.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _known(name: str, values: dict[str, float]) -> str:
    if name not in values:
        raise ConfigError(
            f"{name}: no metric of the selection half; it has {', '.join(sorted(values))}"
        )
    return name
