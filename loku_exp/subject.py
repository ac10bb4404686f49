"""The words the house hangs on: a subject is evaluated, a method or an attack makes one of another.

A run is ``target -> method -> unlearned -> attacks -> evaluation``; each arrow gives a `Subject`. Nothing
here computes anything, so every room may know these words.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from loku_exp.data.records import Records
from loku_exp.workspace import Workspace


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    Attributes:
        name: the column of tables, e.g. ``target``, ``unlearned``, ``unlearned+relearn``.
        weights: how they came about: ``pretrained``, ``finetuned_here``, ``from_scratch``, ``random`` or
            ``published_log``.
        identity: of what it computes; the key of what it answered, so equal ones are asked once.
        load: gives the language model, in evaluation mode, and of the caller's own: it may be changed.
            Takes ``dtype``, of the weights, where it is not to be the model's own. None for what was
            answered elsewhere, e.g. an imported log.
        derived_from: name of the subject it was made from.
        reference: name of the subject that never saw the forget set, which it is compared with.
        reads_prompts: its forward pass depends on where the prompt ends, or changes the logits behind the
            output head. Its model is then called with ``prompt_lengths`` (B,) beside ids and mask, one text
            at a time, with nothing shared between texts and no trick of masks, caches or the head; its
            ``generate`` is given prompts only.
        of_run: made by a run's method, or from what it made; what is kept of it stays in the run's folder.
        abilities_only: it is asked what a model can, and nothing of the dataset.
        path: folder, hub id or log, if it lies somewhere.
    """

    name: str
    weights: str
    identity: str
    load: Callable[..., Any] | None
    derived_from: str | None = None
    reference: str | None = None
    reads_prompts: bool = False
    of_run: bool = False
    abilities_only: bool = False
    path: str | None = None


@dataclass(frozen=True)
class Moment:
    """A subject along the way of a method: after `step` updates, which are `epoch` of the method's epochs.

    An epoch of a training is as many updates as the forget set fills, at least one, as the official code
    counts: 40 rows are two updates of 16, so 12 updates are 6 epochs and 4.8 passes.
    """

    subject: Subject
    step: int
    epoch: float


@dataclass(frozen=True)
class Report:
    """What a method says of itself, for the record of a run; all plain data.

    Attributes:
        training: losses per update, epochs, a stop rule's outcome.
        init: what the initialisation found; None where there is none.
        protocol: what a result must say about how it was made.
        flops: by part.
        trainable_parameters: None where nothing is trained.
    """

    training: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    trainable_parameters: int | None = None


def nothing() -> float:
    """Ship nothing; what is not written reloads to itself."""
    return 0.0


@dataclass(frozen=True)
class Outcome:
    """What a method hands to the evaluation.

    Attributes:
        subject: the unlearned model.
        curve: the subjects along the way, without the target and without `subject`; empty where there is
            no way to speak of.
        report: for the record.
        ship: writes what a user takes away into the run's folder, checks that it reloads to the same
            model, and returns the largest difference of a logit. Writes nothing a second time. Without
            one there is nothing to take away but the method itself.
        step: of the way, where `subject` stands.
        epoch: likewise.
    """

    subject: Subject
    report: Report = field(default_factory=Report)
    ship: Callable[[], float] = nothing
    curve: tuple[Moment, ...] = ()
    step: int = 0
    epoch: float = 0.0


class Method(Protocol):
    """Makes the unlearned model of the target.

    Called again in the folder of a run it was called in before, it goes on, or returns what is there.
    Its further positional arguments name parts of the configuration it wants, of ``loss``, ``init``,
    ``adapter``, ``recipe`` and ``stop``; its knobs are keyword-only.
    """

    def __call__(
        self, target: Subject, records: Records, workspace: Workspace, /, **parts: Any
    ) -> Outcome:
        """Return the unlearned subject; its name and descent are given to it by the run."""


class Attack(Protocol):
    """Makes another subject of one, e.g. by training on a few forget rows; the same for any subject."""

    def __call__(
        self, subject: Subject, records: Records, workspace: Workspace, /, **knobs: Any
    ) -> Subject:
        """Return the attacked subject; it is named ``<subject>+<attack>`` by the run."""
