"""The schema of a run: every section, its keys, their types and ranges. No values live here."""

import importlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from loku_exp.config import components as signatures
from loku_exp.runtime.knobs import Count, Positive, Seed, Share
from loku_exp.runtime.settings import ModelSettings, Recipe, Setting


class Component(BaseModel):
    """A function named by `_target_` with its knobs; they are checked against its signature."""

    model_config = ConfigDict(extra="allow", frozen=True)
    target: str = Field(alias="_target_")

    @property
    def name(self) -> str:
        """The function's name, as results and folders show it."""
        return self.target.rpartition(".")[2]

    @property
    def knobs(self) -> dict[str, Any]:
        """The keyword arguments of the function."""
        return dict(self.model_extra or {})

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what the function takes from the program."""
        return signatures.read_signature(self.target).inputs

    def resolve(self) -> Any:
        """Return the function itself; this imports its module."""
        return getattr(importlib.import_module(self.target.rpartition(".")[0]), self.name)


class DatasetConfig(Component):
    """A corpus: the function that loads it and what the program must know of it beforehand."""

    label: str = Field(alias="name")
    toy: bool
    known_by: str  # the metric that shows a target knows the forget set
    min_known: Share


class LoraConfig(Setting):
    """The adapter; `lora=none` switches it off and trains all weights."""

    enabled: bool
    rank: Count | None = None
    alpha: Count | None = None
    dropout: Share | None = None
    targets: str | None = None


class EvaluationConfig(Component):
    """The suite of the final table and of the curve, and standard lm-eval tasks beside it."""

    batch_tokens: Count
    decode_bytes: Count
    curve: Literal["reduced", "full", "none"]
    tasks: list[str]
    include_path: str | None
    limit: Count | None


class TargetConfig(Setting):
    """The model to unlearn from: a folder or hub id, or null to fine-tune it here."""

    path: str | None
    seed: Seed
    min_known: Share


class ReferenceConfig(Setting):
    """The model that never saw the forget set."""

    source: Literal["train", "path", "log", "none"]
    path: str | None
    seed: Seed


class TrackingConfig(Setting):
    """Where a run's progress is shown beside its folder; no part of what it computes."""

    name: Literal["none", "wandb", "tensorboard"]
    samples: int = Field(0, ge=0)  # texts of the forget set, before and after
    project: str | None = None
    entity: str | None = None
    group: str | None = None  # null: in a sweep its command line
    mode: Literal["online", "offline"] | None = None
    artifact: bool = False  # upload the adapter
    init_timeout: Positive | None = None  # seconds
    finish_timeout: Positive | None = None  # seconds


class LauncherConfig(Setting):
    """Where the runs of a sweep are worked on; each kind has some of the keys."""

    kind: Literal["in_process", "processes", "gpus", "slurm"]
    jobs: Count | None = None  # at the same time
    devices: list[int | str] | None = None  # null: those that are visible
    cluster: Literal["slurm", "local"] = "slurm"
    parameters: dict[str, Any] = Field(default_factory=dict)  # submitit's, null left out


class Config(Setting):
    """A whole run."""

    model: ModelSettings
    dataset: DatasetConfig
    loss: Component
    init: Component | None
    lora: LoraConfig
    training: Recipe
    evaluation: EvaluationConfig
    target: TargetConfig
    reference: ReferenceConfig
    tracking: TrackingConfig
    seed: Seed
    unlearn: bool
    output_dir: str
    cache_dir: str
    force: bool
    device: str
    threads: Count
    parallel: Literal["ddp", "fsdp2"]  # what several processes do; one process needs neither
    launcher: LauncherConfig
    on_error: Literal["continue", "stop"]
    pairs: list[dict[str, Any]]

    def own_functions(self) -> list[str]:
        """Return the dotted names of all functions this configuration names."""
        components = (self.dataset, self.loss, self.init, self.evaluation)
        return [component.target for component in components if component is not None]
