"""The schema of a run: every section, its keys, their types and ranges. No values live here."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from loku_exp.config import components
from loku_exp.config.numbers import with_fractions
from loku_exp.runtime.chosen import Chosen
from loku_exp.runtime.knobs import Count, Decay, Name, Place, Seed, Share, Whole
from loku_exp.runtime.settings import ModelSettings, Recipe, Setting, Tracking


class Component(BaseModel):
    """A function named by `_target_` with its knobs; they are checked against its signature."""

    model_config = ConfigDict(extra="allow", frozen=True)
    target: str = Field(alias="_target_")

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, content: Any) -> Any:
        return with_fractions(content)

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
        return components.read_signature(self.target).inputs

    def chosen(self) -> Chosen:
        """Return the same as rooms below the configuration take it."""
        return Chosen(self.name, self.target, self.inputs, self.knobs)


PARTS = {
    "loss": "loss",
    "regulariser": "loss",  # a term beside it
    "init": "init",
    "lora": "adapter",
    "training": "recipe",
}
"""By group of the configuration: what a method calls the part it takes of it."""


class DatasetConfig(Component):
    """A corpus: the function that loads it and what the program must know of it beforehand."""

    label: Name = Field(alias="name")
    toy: bool
    known_by: str  # the metric that shows a target knows the forget set
    min_known: Share


class LoraConfig(Setting):
    """The adapter; `lora=none` switches it off and trains all weights."""

    kind: Literal["lora", "full"]
    rank: Count | None = None
    alpha: Count | None = None
    dropout: Decay | None = None
    targets: str | None = None
    base: Literal["nf4"] | None = None

    @field_validator("targets", mode="before")
    @classmethod
    def _is_a_name(cls, value: object) -> object:
        if isinstance(value, list):
            layers = ",".join(map(str, value)) or "q_proj,v_proj"
            raise ValueError(
                "should be the name of a list in model.lora_targets; layers stand in such a list: "
                f"model.lora_targets.all=[{layers}]"
            )
        return value


class EvaluationConfig(Component):
    """The suite of the final table and of the curve, and what else a model can."""

    batch_tokens: Count
    curve: Literal["reduced", "brief", "full", "none"]
    report_at: Literal["released"] | None
    abilities: list[Name]
    data_dir: str | None
    texts_dir: str | None
    skip_missing: bool
    tasks: list[str]
    include_path: str | None
    limit: Count | None


class TargetConfig(Setting):
    """The model to unlearn from: a folder or hub id, what an earlier run left, or fine-tuned here."""

    path: Annotated[str, MinLen(1)] | None
    run: str | None = None
    seed: Seed
    min_known: Share

    @property
    def made_here(self) -> bool:
        """Whether it is fine-tuned here."""
        return self.path is None and self.run is None

    @field_validator("run")
    @classmethod
    def _is_named(cls, value: str | None) -> str | None:
        if value == "":
            raise ValueError("not set; give the folder of a finished run")
        return value


class ReferenceConfig(Setting):
    """The model that never saw the forget set."""

    source: Literal["train", "path", "log", "none"]
    path: str | None
    seed: Seed


class LauncherConfig(Setting):
    """Where the runs of a sweep are worked on; each kind has some of the keys."""

    kind: Literal["in_process", "processes", "gpus", "slurm"]
    jobs: Count | None = None  # at the same time
    devices: list[int | str] | None = None  # null: those that are visible
    cluster: Literal["slurm", "local"] = "slurm"
    max_timeouts: Annotated[Whole, Ge(0)] = 3  # after so many a job is queued again
    parameters: dict[str, Any] = Field(default_factory=dict)  # submitit's, null left out


class Config(Setting):
    """A whole run."""

    model: ModelSettings
    dataset: DatasetConfig
    method: Component
    loss: Component
    regulariser: Component | None = None
    init: Component | None
    lora: LoraConfig
    training: Recipe
    evaluation: EvaluationConfig
    target: TargetConfig
    reference: ReferenceConfig
    attacks: dict[str, Component] = Field(default_factory=dict)  # none: the group leaves nothing
    tracking: Tracking
    seed: Seed
    unlearn: bool
    output_dir: Place
    cache_dir: Place
    force: bool
    page: bool
    device: str
    threads: Annotated[Whole, Ge(1), Le(1024)]
    launcher: LauncherConfig
    on_error: Literal["continue", "stop"]
    pairs: list[dict[str, Any]]
    pairing: dict[str, dict[str, dict[str, str | None]]]  # read where target and reference name it

    def uses(self, part: str) -> bool:
        """Return whether the method takes a part of the configuration, by the name of its input."""
        return self.unlearn and part in self.method.inputs

    def unused_groups(self) -> list[str]:
        """Return the groups that the method takes nothing of."""
        return [group for group, part in PARTS.items() if part not in self.method.inputs]

    def functions(self) -> list[str]:
        """Return the dotted names of all functions that a run of this configuration calls."""
        parts = [self.loss] if self.uses("loss") else []
        parts += [self.regulariser] if self.uses("loss") and self.regulariser else []
        parts += [self.init] if self.uses("init") and self.init else []
        parts += [self.method] if self.unlearn else []
        components = [self.dataset, self.evaluation, *parts, *self.attacks.values()]
        return [component.target for component in components]
