"""How a run fills its record."""

import math
import resource
import sys
from dataclasses import asdict
from typing import Any

import torch

from loku_exp.attacks.gains import gains, words_of_gains
from loku_exp.config.schema import Config
from loku_exp.evaluation.catalogue import Judgement, completed
from loku_exp.evaluation.differences import half_widths, widths_of_means
from loku_exp.evaluation.harness import names_of
from loku_exp.evaluation.suite import Evaluation, Facts, Metrics
from loku_exp.models.origin import SMALL
from loku_exp.results.schema import MachinePart, ModelPart, Record, RunPart
from loku_exp.runtime.logs import Stopwatch
from loku_exp.stages.finetuning import flops_of
from loku_exp.stages.forgotten import started_from
from loku_exp.stages.found import Found, Ready
from loku_exp.stages.given import given_origins, is_toy
from loku_exp.stages.inputs import Inputs
from loku_exp.stages.notes import notes_under_table
from loku_exp.stages.provenance import provenance
from loku_exp.subject import Subject

# Of the columns of tables; attacked ones follow.
ORDER = ("untuned", "target", "unlearned", "reference")


def assemble(ready: Ready, found: Found, watch: Stopwatch) -> Record:
    """Fill the record of a finished run.

    Args:
        ready: what it had at hand.
        found: what it found; every subject is evaluated.
        watch: wall time by stage.
    """
    config, inputs, outcome = ready.config, ready.inputs, found.outcome
    judgements = _judgements(inputs, found)
    models = {
        name: _model(found.subjects[name], found.evaluations, judgements.get(name), inputs)
        for name in _in_order(found.subjects)
    }
    words = [*inputs.suite.catalogue, *words_of_gains(inputs.suite.catalogue)]
    protocol = _protocol(config, inputs, found.evaluations["target"])
    protocol |= outcome.report.protocol if outcome else {}
    training = outcome.report.training if outcome else {}
    return Record(
        schema_version=2,
        run=RunPart(
            id=ready.run_id,
            choices=_choices(config),
            seed=config.seed,
            toy=is_toy(config),
            label=_label(config, inputs),
            remote_code=config.model.trust_remote_code,
            started=watch.started,
            state="finished",
            **provenance(),
        ),
        machine=MachinePart(**asdict(ready.workspace.machine)),
        protocol=protocol,
        catalogue=completed(words, {name for model in models.values() for name in model.metrics}),
        models=models,
        curve=found.curve,
        training=training | ({"reload_difference": found.reload_difference} if outcome else {}),
        init=outcome.report.init if outcome else None,
        judgement=judgements.get("unlearned"),
        notes=notes_under_table(inputs, protocol, found, judgements.get("unlearned")),
        cost=_cost(found, watch.seconds, torch.device(ready.workspace.machine.device)),
    )


def _in_order(subjects: dict[str, Subject]) -> list[str]:
    """Return the names of subjects in the order of columns: the plain ones, then those of each attack."""

    def place(name: str) -> tuple[int, int, bool]:
        of, _, attack = name.partition("+")
        plain, _, moment = of.partition("@")
        return attacks.index(attack), ORDER.index(plain), not moment

    attacks = sorted(dict.fromkeys(name.partition("+")[2] for name in subjects), key=bool)
    return sorted(subjects, key=place)


def _judgements(inputs: Inputs, found: Found) -> dict[str, Judgement]:
    """Return what the suite says of each model that was to forget, attacked ones included."""
    judged = {}
    target, outcome = found.subjects["target"], found.outcome
    for name, subject in found.subjects.items():
        if outcome is None or not subject.of_run:
            continue
        training = outcome.report.training
        if name != "unlearned":  # no stop rule ended it; it is judged by the same thresholds
            training = {key: training[key] for key in ("thresholds",) if key in training}
        before = _an_epoch_before_the_end(found) if name == "unlearned" else None
        facts = Facts(training, target.weights, before)
        compared = found.evaluations.get(subject.reference or "")
        judged[name] = inputs.suite.judge(
            found.evaluations[name], found.evaluations["target"], compared, facts
        )
    return judged


def _an_epoch_before_the_end(found: Found) -> Metrics | None:
    """Return what was measured one epoch before the end; None where that was measured at another time."""
    end = found.curve[-1].epoch
    return next((p.metrics for p in found.curve if math.isclose(p.epoch, end - 1)), None)


def _model(
    subject: Subject,
    evaluations: dict[str, Evaluation],
    judgement: Judgement | None,
    inputs: Inputs,
) -> ModelPart:
    evaluation = evaluations[subject.name]
    reference = evaluations.get(subject.reference or "")
    measured = {name: other.metrics for name, other in evaluations.items()}
    widths: dict[str, float] = {}
    if reference:
        # rows are left out one by one, and those of abilities, thousands, are no aggregate's
        abilities = names_of(inputs.abilities)
        own = [row for row in evaluation.examples if row["set"] not in abilities]
        widths = half_widths(own, reference.examples, inputs.suite)
        widths |= widths_of_means(evaluation, reference, inputs.abilities)
    return ModelPart(
        role="attacked" if "+" in subject.name else subject.name.partition("@")[0],
        weights=subject.weights,
        path=None if subject.of_run else subject.path,
        derived_from=subject.derived_from,
        reference=subject.reference,
        metrics=evaluation.metrics | gains(subject.name, measured, inputs.suite.catalogue),
        half_widths=widths,
        judgement=judgement,
    )


def _choices(config: Config) -> dict[str, Any]:
    choices: dict[str, Any] = {"model": config.model.name, "dataset": config.dataset.label}
    if not config.unlearn:
        return choices
    choices["method"] = config.method.name
    if config.uses("loss"):
        choices["loss"] = config.loss.name
        choices |= {"regulariser": config.regulariser.name} if config.regulariser else {}
    if config.uses("init"):
        choices["init"] = config.init.name if config.init else None
    if config.uses("adapter"):
        choices |= {"lora.rank": config.lora.rank, "lora.targets": config.lora.targets}
        choices |= {"lora.base": config.lora.base} if config.lora.base else {}
    if config.uses("recipe"):
        choices["training.recipe"] = config.training.recipe
    return choices


def _label(config: Config, inputs: Inputs) -> str:
    labels = ["TOY data"] if config.dataset.toy else []
    part = inputs.corpus.protocol.get("label")  # of a dataset, e.g. some of its authors
    labels += [str(part)] if part else []
    if config.model.weights == "random":
        labels.append("RANDOM weights, for timing only")
    elif config.model.kind in SMALL:
        labels.append(SMALL[config.model.kind])
    labels += [origin.label for origin in given_origins(config)]
    return ", ".join(labels)


def _protocol(config: Config, inputs: Inputs, target: Evaluation) -> dict[str, Any]:
    return (
        inputs.corpus.protocol
        | inputs.suite.protocol
        | {
            "rows": target.counts,
            "reference": config.reference.source,
            "abilities": config.evaluation.abilities,
            "missing": inputs.missing_abilities,
            "tasks": config.evaluation.tasks,
            "limit": config.evaluation.limit if inputs.abilities else None,
            "data_digest": inputs.corpus.digest(),
            **started_from(inputs.earlier),
            "seeds": {
                "unlearning": config.seed,
                "target": config.target.seed,
                "reference": config.reference.seed,
            },
        }
    )


def _cost(found: Found, seconds: dict[str, float], device: torch.device) -> dict[str, Any]:
    cost: dict[str, Any] = {"seconds": {name: round(value, 2) for name, value in seconds.items()}}
    if device.type == "cuda":
        cost["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        cost["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    report = found.outcome.report if found.outcome else None
    if report and report.flops:
        cost["flops"] = dict(report.flops)
        again = (
            flops_of(found.subjects["reference"].path) if "reference" in found.subjects else None
        )
        if again is not None:
            cost["flops"]["retraining"] = again  # what unlearning saves
    if report and report.trainable_parameters is not None:
        cost["trainable_parameters"] = report.trainable_parameters
    return cost
