"""The schema of ``metrics.json``: everything about a finished run. Light to import."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunPart(_Part):
    """Which run this is."""

    id: str
    choices: dict[str, Any]
    seed: int
    toy: bool
    label: str
    commit: str | None
    version: str
    format: int | None = None  # of the numbers, `runs.RUN_FORMAT`; None before it was recorded
    packages: dict[str, str]
    hardware: dict[str, Any]
    started: str
    state: Literal["finished"]


class ModelPart(_Part):
    """One evaluated model; an absent metric is absent, never 0."""

    role: str
    weights: str
    derived_from: str | None
    metrics: dict[str, float]


class CurvePoint(_Part):
    """The unlearned model along the way; metrics of the reduced suite at least."""

    model: str
    epoch: float
    step: int
    metrics: dict[str, float]


class Record(_Part):
    """Everything about a finished run."""

    schema_version: Literal[1]
    run: RunPart
    protocol: dict[str, Any]
    models: dict[str, ModelPart]
    curve: list[CurvePoint]
    training: dict[str, Any]
    init: dict[str, Any] | None
    cost: dict[str, Any]
    verdict: str | None
