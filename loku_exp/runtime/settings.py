"""What a model, a training and a prompt are described by: frozen values without a default.

The configuration is made of them, and the rooms below it take them as plain arguments; no value lives
here, each lives in one yaml.
"""

from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from loku_exp.runtime.knobs import (
    Count,
    Decay,
    Name,
    NonNegative,
    NonNegativeCount,
    Positive,
    Share,
)


class Setting(BaseModel):
    """Named values that belong together; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Template(Setting):
    """Text around a question.

    Text = ``question_start + question + question_end + answer_tag + answer``, tokenised at once; labels
    begin where ``question_start + question + question_end`` alone would end.
    """

    question_start: str
    question_end: str
    answer_tag: str

    def prompt(self, question: str) -> str:
        """Return the unlabelled part of the text, which is also the prompt of a generation."""
        return self.question_start + question + self.question_end


class Optimization(Setting):
    """One optimisation: how many updates, of what, with which optimiser."""

    epochs: Positive
    batch_size: (
        Count | Literal["all"]
    )  # examples per update; all: the whole set, one update an epoch
    micro_batch_size: Count  # examples per forward pass; must divide batch_size (all: at most)
    learning_rate: Positive
    weight_decay: NonNegative
    betas: tuple[Decay, Decay]
    warmup_epochs: NonNegative
    schedule: Literal["linear", "constant"]
    max_grad_norm: Positive | None  # gradients above are scaled down to it; null: none is
    bucket: Count | None  # updates whose examples are sorted by length to pad less; null: none
    autocast: Literal["auto", "none", "bfloat16"]  # auto: bfloat16 where the hardware has it


class StopRule(Setting):
    """When texts count as forgotten: EL_n and MA below what the model has on unseen text."""

    n: Count
    el: Share | None  # null: measured on unseen text
    ma: Share | None


class MeetReference(Setting):
    """When a forget set counts as forgotten: a metric of it has come down to the reference's."""

    meets: Literal["forget_prob", "forget_shift"]


def _kind_of_stop(rule: Any) -> str:
    """Return the tag of a stop rule; a hyphen keeps it out of the keys that errors name."""
    meets = "meets" in rule if isinstance(rule, dict) else isinstance(rule, MeetReference)
    return "at-reference" if meets else "below-unseen"


Stopping = Annotated[
    Annotated[StopRule, Tag("below-unseen")] | Annotated[MeetReference, Tag("at-reference")],
    Discriminator(_kind_of_stop),
]


class Recipe(Optimization):
    """How a model unlearns."""

    recipe: Name
    retain_batch_size: Count | None  # retain examples per update; null: as many as forget examples
    stop: Stopping | None  # after which epoch training ends early; null: never
    reduction: Literal["micro_batch", "update"]
    snapshot_epochs: Count
    gradient_checkpointing: Literal["auto"] | bool  # auto: where activations would not fit


class ModelSettings(Setting):
    """A causal language model: where it comes from, how it is prompted, where LoRA goes."""

    name: Name
    kind: Literal["toy", "from_scratch", "pretrained"]
    path: str | None
    revision: str | None
    tokenizer: str | None
    weights: Literal["pretrained", "scratch", "random"]
    architecture: dict[str, Any] | None
    vocabulary: Count | None
    context_length: Count | None  # tokens; null: what its configuration names
    template: (
        Template | Literal["chat"]
    )  # chat: the tokenizer's own, see `models.tokenizer.template_of`
    lora_targets: dict[str, Annotated[list[str], MinLen(1)]]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]  # auto: bfloat16 where hardware has it
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"]
    trust_remote_code: bool
    stop_at_eos: bool
    finetuning: Optimization
    learning_rates: dict[Literal["lora", "full"], Positive]


class Tracking(Setting):
    """Where a run's progress is shown beside its folder; no part of what it computes."""

    name: Literal["none", "wandb", "trackio", "tensorboard"]
    samples: NonNegativeCount = 0  # texts of the forget set, before and after
    project: str | None = None
    entity: str | None = None
    group: str | None = None  # null: in a sweep its command line
    mode: Literal["online", "offline"] | None = None
    artifact: bool = False  # upload the adapter
    init_timeout: Positive | None = None  # seconds
    finish_timeout: Positive | None = None  # seconds
