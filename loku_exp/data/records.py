"""What a dataset becomes before training and evaluation: token ids with labels."""

from collections.abc import Callable
from dataclasses import dataclass, field

IGNORED = -100  # label of a position outside the loss

Tokenize = Callable[[str], list[int]]
"""Text to ids, with the tokenizer's own special tokens (Llama-2 adds BOS, GPT-Neo and Phi none)."""


@dataclass(frozen=True)
class Sequence:
    """One text in token ids; labels are unshifted: position t holds the token itself or -100."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_labels(self) -> int:
        """Labelled tokens (the first token is never predicted, so it never counts)."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True)
class Example:
    """One example of a dataset, ready for a model.

    Attributes:
        row: index in its file; the key of everything (questions are not unique in TOFU).
        group: what rows hang together, e.g. an author.
        role: ``forget``, ``retain``, or the name of an evaluation set.
        prompt: ids given to the model when it generates.
        answer: the text with its labels.
        alternatives: further labelled texts by name, e.g. ``paraphrase`` (1) and ``wrong`` (3 or 5).
        question: the prompt as text, for people.
        reference: the answer as text, what generations are compared with.
        weight: its weight in a weighted mean.
    """

    row: int
    group: str
    role: str
    prompt: tuple[int, ...]
    answer: Sequence
    alternatives: dict[str, tuple[Sequence, ...]] = field(default_factory=dict)
    question: str = ""
    reference: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Records:
    """All records of a run.

    Attributes:
        target_training: what the target was, or is here, fine-tuned on.
        reference_training: the same without the forget set.
        forget: what unlearning removes.
        retain: what unlearning keeps.
        evaluation: evaluation sets by name.
    """

    target_training: list[Example]
    reference_training: list[Example]
    forget: list[Example]
    retain: list[Example]
    evaluation: dict[str, list[Example]]
