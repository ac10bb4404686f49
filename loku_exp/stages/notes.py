"""What a run says under its table, beside the verdict."""

from typing import Any

from loku_exp.evaluation.catalogue import SAME, Judgement
from loku_exp.stages.forgotten import said_of
from loku_exp.stages.found import Found
from loku_exp.stages.inputs import Inputs

NO_CONTROL = (
    "note: without a reference the attacks have no control: a model that never knew the forget set might "
    "gain as much by them"
)
GAINS = (
    "excess over the reference: 0, it knows no more than a model that never saw the forget set, attacked "
    "alike; 1, all that the target knew; gain beside the reference's: 1, as teachable as that model; "
    "more, reminded"
)
EPSILON = (
    "note: epsilon exceeds most of the retain Fisher, so FILA's importance is nearly that of the forget "
    "set alone"
)


def notes_under_table(
    inputs: Inputs, protocol: dict[str, Any], found: Found, judgement: Judgement | None
) -> list[str]:
    """Return what stands under the table, beside the verdict: protocol, init, cautions.

    Args:
        inputs: of the run.
        protocol: of its record.
        found: what it found; every subject is evaluated.
        judgement: of the unlearned model, if there is one.
    """
    rows = ", ".join(f"{name} {count}" for name, count in protocol["rows"].items())
    parts = [f"rows evaluated: {rows}", *inputs.corpus.described]
    parts += inputs.suite.described
    if protocol["abilities"]:
        parts.append(f"abilities: {', '.join(protocol['abilities'])}")
    if protocol.get("updates"):
        forget, retain = protocol["examples_per_update"]
        parts.append(f"{protocol['updates']} updates of {forget} forget + {retain} retain examples")
    notes = ["protocol: " + "; ".join(parts)]
    notes += said_of(inputs.earlier, found.evaluations) if inputs.earlier else []
    if "untuned" in found.subjects:
        notes.append(
            "untuned: the pretrained model, asked what it can; what target and reference lost of it, their "
            "fine-tuning took, not the unlearning"
        )
    if protocol["reference"] != "none":
        notes.append(
            f"arrows: where the reference is, and how far; =: nearer than {SAME}; ≈: within what other "
            "rows (99 %) or, in all but the forget set, another training would change (target and "
            "reference differ by as much)"
        )
    if any("+" in name for name in found.subjects):
        notes.append(GAINS if "reference" in found.evaluations else NO_CONTROL)
    init = found.outcome.report.init if found.outcome else None
    if init:
        share = f"{init['share_of_weight_norm']:.1%} of the adapted weights' norm"
        notes.append(f"init: {init['name']} put {share} into the adapter")
    notes += [f"note: {text}" for text in (judgement.notes if judgement else [])]
    if init and init.get("epsilon_dominates"):
        absolute = init.get("epsilon_mode") == "absolute"  # other inits have no such knob
        notes.append(EPSILON + ("; see init.epsilon_mode=relative" if absolute else ""))
    if protocol.get("limit"):
        notes.append(
            f"note: abilities and perplexities are of the first {protocol['limit']} documents each"
        )
    if protocol["missing"]:
        notes.append(f"note: absent, their data could not be had: {', '.join(protocol['missing'])}")
    return notes
