"""What a dataset becomes before training and evaluation: token ids with labels."""

from collections.abc import Callable, Iterable
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
        others: further sets to train on, by the name a loss asks for them.
    """

    target_training: list[Example]
    reference_training: list[Example]
    forget: list[Example]
    retain: list[Example]
    evaluation: dict[str, list[Example]]
    others: dict[str, list[Example]] = field(default_factory=dict)

    def batch_names(self) -> list[str]:
        """Return what a loss can ask for: sets, and alternatives that every forget row has."""
        alternatives = [set(record.alternatives) for record in self.forget]
        shared = sorted(set.intersection(*alternatives)) if alternatives else []
        return list(dict.fromkeys(["forget", "retain", *self.others, *shared]))

    def batches(self, names: Iterable[str]) -> tuple[dict[str, list[Sequence]], frozenset[str]]:
        """Return texts to train on by name, the forget set first, and which of them are paired with it.

        A paired set is an alternative answer to each forget row, e.g. ``idk``: it has a text for every
        forget row, and what stands beside a forget row in a batch is the alternative of that row.

        Args:
            names: of `batch_names`.
        """
        sets = {"forget": self.forget, "retain": self.retain} | self.others
        texts, paired = {}, set()
        for name in sorted(names, key=lambda name: (name != "forget", name)):
            if name in sets:
                texts[name] = [record.answer for record in sets[name]]
            else:
                texts[name] = [record.alternatives[name][0] for record in self.forget]
                paired.add(name)
        return texts, frozenset(paired)
