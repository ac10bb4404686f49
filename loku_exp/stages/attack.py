"""Apply attacks to the subjects of a run: the same to all of them."""

from collections.abc import Iterator
from dataclasses import replace

from loku_exp.config.schema import Component, Config
from loku_exp.models.identity import own_code
from loku_exp.runtime.cache import digest
from loku_exp.stages.inputs import Inputs
from loku_exp.subject import Subject
from loku_exp.workspace import Workspace

ATTACKED = (
    "reference",
    "target",
    "unlearned",
)  # the reference first: the others are compared with it


def attacked(
    subjects: dict[str, Subject], config: Config, inputs: Inputs, workspace: Workspace
) -> Iterator[Subject]:
    """Yield every subject after every attack of the configuration, one attack after the other.

    An attacked model is compared with the reference after the same attack. One that has no model, e.g.
    a published log, cannot be attacked, and the others are compared with it as it stands.

    Args:
        subjects: of the run, by name.
        config: of the run.
        inputs: of the run.
        workspace: of the run.
    """
    for name, component in config.attacks.items():
        attack = component.chosen()
        for of in ATTACKED:
            subject = subjects.get(of)
            if subject is None or subject.load is None:
                continue
            made: Subject = attack(subject=subject, records=inputs.records, workspace=workspace)
            reference = subject.reference
            if reference and subjects[reference].load is not None:
                reference = f"{reference}+{name}"
            yield replace(
                made,
                name=f"{of}+{name}",
                identity=_identity(made, component, inputs, workspace),
                derived_from=of,
                reference=reference,
                of_run=subject.of_run,
            )


def _identity(made: Subject, attack: Component, inputs: Inputs, workspace: Workspace) -> str:
    """Return the key of what an attacked subject answers; a user's own attack need not think of it."""
    code = own_code([attack.target])
    if not code:
        return made.identity
    return digest([made.identity, code, attack.knobs, inputs.corpus.digest(), workspace.seed])
