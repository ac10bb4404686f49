"""What a run has at hand, and what it has found so far."""

from dataclasses import dataclass, field, replace

from loku_exp.config.saved import keep_attacks
from loku_exp.config.schema import Config
from loku_exp.evaluation.suite import Evaluation
from loku_exp.methods.adapter import Adapter
from loku_exp.results.schema import CurvePoint
from loku_exp.stages.inputs import Inputs
from loku_exp.subject import Outcome, Subject
from loku_exp.workspace import Workspace


@dataclass(frozen=True)
class Ready:
    """A run that can start: everything that could be wrong with it beforehand was looked at.

    Attributes:
        config: resolved for this machine.
        inputs: texts and tasks.
        adapter: its shape, where the method takes one.
        workspace: folder, cache, seed, machine.
        run_id: what it computes.
        unlearning: what its unlearning computes, which other runs may share.
    """

    config: Config
    inputs: Inputs
    adapter: Adapter | None
    workspace: Workspace
    run_id: str
    unlearning: str

    def with_attacks_kept(self) -> "Ready":
        """Return the same with the attacks that its run has already, where it is finished."""
        return replace(self, config=keep_attacks(self.config, self.workspace.folder))


@dataclass
class Found:
    """What a run has found so far.

    Attributes:
        subjects: all that were evaluated, by name.
        evaluations: by name of the subject.
        outcome: of the method; None where the run only evaluates.
        curve: the unlearned model along the way.
        reload_difference: largest difference of a logit between the subject and what was shipped.
    """

    subjects: dict[str, Subject] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    outcome: Outcome | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    reload_difference: float | None = None
