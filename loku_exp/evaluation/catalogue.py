"""A suite's own words: what its metrics are called, which way is good, how they are shown and averaged.

Tables, reports, plots, dashboards and searches read these; they stand in every record, so that a record
can be read without the suite. Light to import.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Part = Literal["knowledge", "gap", "test", "utility", "ability", "detail"]
Form = Literal["share", "signed", "p", "perplexity", "count"]
LEAST_P = 1e-300  # what an underflowed p-value is taken for
SAME = 0.005  # nearer than that counts as equal in tables
NOT_SHOWN = re.compile(r"_(acc_norm|loss|perplexity|stderr)$")  # of tasks not of the suite
ABILITIES = {
    "reasoning": "reasoning (mean of nine)",
    "reasoning_predecessor": "reasoning (mean of nine, predecessor's scoring)",
    "reasoning_local": "reasoning (mean of local tasks)",
    "dialogue": "dialogue (mean F1 of four)",
}
"""Labels of the means of general abilities, which are measured beside any suite."""
KINDS = {"acc": "accuracy", "f1": "F1", "ppl": "perplexity per token"}


class Metric(BaseModel):
    """A metric of a suite.

    Attributes:
        name: its key, ``<set>_<quantity>`` or a word.
        label: for people; tables begin a group where the text before the comma changes.
        better: which way is good: ``reference`` (to meet what the model has that never saw the forget
            set), ``high``, ``low``, or ``none`` where neither can be said of one model.
        form: how it is written: ``share`` (three digits), ``signed``, ``p`` (a p-value; means are
            geometric), ``perplexity``, ``count``.
        unit: what varies independently, and is resampled for an interval: ``group`` (author), ``row``
            (document), or ``all`` where it is one number over all rows.
        part: what it says: ``knowledge`` of the forget set, which falls as a model forgets; ``gap`` to a
            model that never knew it, 0 is there; ``test`` against such a model; ``utility`` that is
            kept; ``ability`` that has nothing to do with the forget set; ``detail``.
        summary: whether tables over many runs show it.
        forget: whether it is about the forget set, where target and reference differ for that reason; in
            any other metric they differ as two trainings do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    label: str
    better: Literal["reference", "high", "low", "none"] = "reference"
    form: Form = "share"
    unit: Literal["group", "row", "all"] = "row"
    part: Part = "detail"
    summary: bool = False
    forget: bool = False

    def written(self, value: float | None) -> str:
        """Return a value as tables show it; nothing where it is absent."""
        if value is None or not math.isfinite(value):
            return ""
        if self.form == "p" and value < LEAST_P:
            return f"< {LEAST_P:.0e}"
        if self.form == "p":
            return f"{value:.2g}" if value >= 1e-3 else f"{value:.0e}"
        if self.form == "perplexity":
            return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
        if self.form == "count":
            return f"{value:g}"
        return f"{value:+.2f}" if self.form == "signed" else f"{value:.3f}"

    def arrow(self, value: float | None, goal: float | None, chance: float = 0.0) -> str:
        """Return which way, and how far, what a value should meet is; nothing where unknown.

        Args:
            value: of a model.
            goal: of its reference.
            chance: what their difference may be by chance; ``≈`` within it.
        """
        if value is None or goal is None or self.better != "reference":
            return ""
        gap = goal - value
        size = self.written(abs(gap)) if self.form == "perplexity" else f"{abs(gap):.2f}"
        if abs(gap) < SAME:
            return "="
        return "≈" if abs(gap) <= chance else f"{'↑' if gap > 0 else '↓'} {size}"

    def scaled(self, value: float) -> float:
        """Return a value on the scale it is averaged and drawn on: a p-value as its log10."""
        return math.log10(max(value, LEAST_P)) if self.form == "p" else value


class Judgement(BaseModel):
    """What a suite says of a model that was to forget.

    Attributes:
        success: whether it forgot and kept; None where that cannot be said.
        collapsed: whether it is broken.
        sentence: the same in words.
        utility: the metric that says what it kept.
        goals: by metric, the value at or below which the forget set counts as forgotten; absent where
            that is the reference's.
        notes: what must be known to read the numbers, a sentence each.
    """

    model_config = ConfigDict(extra="forbid")

    success: bool | None
    collapsed: bool
    sentence: str
    utility: str | None = None
    goals: dict[str, float] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


def completed(catalogue: Sequence[Metric], names: Iterable[str]) -> list[Metric]:
    """Return the catalogue's metrics that there are, then those of other tasks that are worth showing."""
    present = set(names)
    known = [metric for metric in catalogue if metric.name in present]
    rest = present - {metric.name for metric in catalogue}
    others = [name for name in ABILITIES if name in rest] + sorted(rest - ABILITIES.keys())
    return known + [of_task(name) for name in others if not NOT_SHOWN.search(name)]


def of_task(name: str) -> Metric:
    """Return the metric of a task that belongs to no suite: a mean of abilities, or named by its key."""
    label = re.sub(r"_(acc|f1|ppl)$", lambda match: f", {KINDS[match[1]]}", name)
    form: Any = "perplexity" if name.endswith("_ppl") else "share"
    return Metric(
        name=name,
        label=ABILITIES.get(name, label),
        form=form,
        part="ability",
        summary=name in ABILITIES,
    )


def by_name(catalogue: Iterable[Metric]) -> dict[str, Metric]:
    """Return metrics by their key."""
    return {metric.name: metric for metric in catalogue}
