"""What an evaluation stage needs of a suite; those of TOFU and TDEC are two, a user's own a third."""

from typing import Any, Protocol

from loku_exp.evaluation.harness import Evaluation


class Suite(Protocol):
    """Builds lm-eval tasks over the evaluation sets of a dataset."""

    protocol: dict[str, object]
    """What a result must say about how it was scored."""

    abilities: list[Any]
    """Tasks that do not depend on the forget set; `evaluation.limit` cuts them."""

    end_of_text: int | None
    """Id at which continuations end, see `loku_exp.evaluation.tdec.metrics`; None: they go on."""

    shared_digest: str
    """Identity of what `shared` evaluates, beside the abilities."""

    def tasks(self, reference: Evaluation | None, *, full: bool = True) -> list[Any]:
        """Return the tasks over the evaluation sets.

        Args:
            reference: evaluation of the model that never saw the forget set, to compare with.
            full: False for the reduced suite of the curve, without generation.
        """

    def shared(self) -> list[Any]:
        """Return those tasks whose requests are the same whatever the forget set is."""
