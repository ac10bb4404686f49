"""Apply attacks to the subjects of a run: the same to all of them."""

from collections.abc import Iterator
from dataclasses import replace

from loku_exp.config.schema import Config
from loku_exp.runtime.chosen import check_returned
from loku_exp.stages import identity
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
            check_returned(component.target, made, Subject)
            reference = subject.reference
            if reference and subjects[reference].load is not None:
                reference = f"{reference}+{name}"
            yield replace(
                made,
                name=f"{of}+{name}",
                identity=identity.made_by(component, made, inputs, workspace.seed),
                derived_from=of,
                reference=reference,
                of_run=subject.of_run,
            )
