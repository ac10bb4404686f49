"""The schema of ``metrics.json``: everything about a finished run. Light to import."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from loku_exp.evaluation.catalogue import Judgement, Metric

SCHEMA = 2


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunPart(_Part):
    """Which run this is."""

    id: str
    choices: dict[str, Any]
    seed: int
    toy: bool
    label: str
    remote_code: bool = False  # whether code that came with the weights was allowed to run
    commit: str | None
    version: str
    format: int  # of the numbers, `stages.identity.RUN_FORMAT`
    packages: dict[str, str]
    hardware: dict[str, Any]
    started: str
    state: Literal["finished"]


class MachinePart(_Part):
    """The machine as resolved; see `loku_exp.runtime.machine.Machine`."""

    device: str
    precision: dict[str, str]
    attention: str
    threads: int
    processes: int


class ModelPart(_Part):
    """One evaluated subject; an absent metric is absent, never 0.

    Attributes:
        role: ``target``, ``reference``, ``unlearned``, ``attacked``, or ``untuned``: the pretrained model
            that the target was fine-tuned from here, of which only what it can is known.
        weights: how they came about.
        path: folder, hub id or log it was read from, on the machine of the run; None: the run's own folder.
        derived_from: the subject it was made from.
        reference: the subject it is compared with.
        metrics: by name.
        half_widths: by metric, half of the 99 % interval of the difference to the reference, over other
            rows; see `loku_exp.evaluation.differences`.
        judgement: of a model that was to forget.
    """

    role: str
    weights: str
    path: str | None = None
    derived_from: str | None
    reference: str | None
    metrics: dict[str, float]
    half_widths: dict[str, float] = {}
    judgement: Judgement | None = None


class CurvePoint(_Part):
    """The unlearned model along the way; metrics of the reduced suite at least.

    Attributes:
        model: name of the subject.
        epoch: of unlearning.
        step: updates so far.
        metrics: by name, over all rows.
        halves: the same over the half of the groups to choose by, and over the half to report.
    """

    model: str
    epoch: float
    step: int
    metrics: dict[str, float]
    halves: list[dict[str, float]] = []


class Record(_Part):
    """Everything about a finished run."""

    schema_version: Literal[2]
    run: RunPart
    machine: MachinePart
    protocol: dict[str, Any]
    catalogue: list[Metric]
    models: dict[str, ModelPart]
    curve: list[CurvePoint]
    training: dict[str, Any]
    init: dict[str, Any] | None
    judgement: Judgement | None
    notes: list[str]
    cost: dict[str, Any]

    @property
    def unlearned(self) -> bool:
        """Whether the run unlearned, rather than only evaluated."""
        return "unlearned" in self.models
