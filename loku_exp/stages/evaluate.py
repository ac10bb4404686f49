"""Ask subjects what the suite asks: any subject, once, going on where an earlier evaluation was ended."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, ModelError
from loku_exp.evaluation.halves import metrics_of_halves
from loku_exp.evaluation.harness import evaluate, limits
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.requests import SuiteLM
from loku_exp.evaluation.suite import Depth, Evaluation
from loku_exp.models import identity
from loku_exp.models.head import check_head
from loku_exp.results.schema import CurvePoint
from loku_exp.runtime.chosen import check_returned
from loku_exp.runtime.events import Measured, tell
from loku_exp.stages.inputs import Inputs
from loku_exp.subject import Outcome, Subject
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)
ANSWER_FORMAT = 7  # raise by hand whenever an unchanged subject answers otherwise
Evaluations = dict[str, Evaluation]


def evaluate_subject(
    subject: Subject,
    config: Config,
    inputs: Inputs,
    workspace: Workspace,
    reference: Evaluation | None = None,
    depth: Depth = "full",
) -> Evaluation:
    """Return the evaluation of a subject; what it answered before is not asked again.

    Args:
        subject: any; one without a model has its evaluation from a log.
        config: of the run.
        inputs: of the run.
        workspace: of the run.
        reference: evaluation of the model it is compared with.
        depth: ``full`` has the abilities too.
    """
    if subject.load is None:
        return _evaluation_of_log(subject, inputs)
    tasks = [] if subject.abilities_only else inputs.suite.tasks(reference, depth)
    check_returned(f"tasks of {config.evaluation.target}", tasks, Sequence)
    tasks = [*tasks, *(inputs.abilities if depth == "full" else [])]
    answers = Answers(answers_file(subject, config, inputs, workspace))
    lm = SuiteLM(
        answers,
        partial(_inference, subject, config, inputs),
        inputs.suite.requests,
        reads_prompts=subject.reads_prompts,
    )
    try:
        return evaluate(lm, tasks, limits(inputs.abilities, config.evaluation.limit))
    finally:
        answers.close()


def answers_file(subject: Subject, config: Config, inputs: Inputs, workspace: Workspace) -> Path:
    """Return the file of a subject's answers, whatever is asked: named by everything they depend on."""
    recipe = {
        "format": ANSWER_FORMAT,
        "subject": subject.identity,
        "tokenizer": inputs.tokenizer_digest,
        "model": config.model.model_dump(include={"dtype", "attention", "stop_at_eos"}),
        "batch_tokens": config.evaluation.batch_tokens,
        "max_length": inputs.max_length,
        "device": workspace.machine.device.partition(":")[0],
    }
    if subject.reads_prompts:
        recipe["logits"] = "its own"
    asked = inputs.suite.requests.items()
    if own := identity.own_code([f"{_module(answerer)}.{kind}" for kind, answerer in asked]):
        recipe["requests"] = own
    return workspace.store(subject.of_run).path("answers", recipe) / "answers.jsonl"


def _module(answerer: Any) -> str:
    """Return where a function, or what a `partial` is of, stands."""
    return str(getattr(answerer, "func", answerer).__module__)


def asked_recipe(config: Config, inputs: Inputs) -> dict[str, Any]:
    """Return what all questions of a run depend on: data, tasks, and a user's own code."""
    return {
        "data": inputs.corpus.digest(),
        "abilities": inputs.ability_digest,
        "evaluation": config.evaluation.model_dump(
            mode="json", exclude={"curve", "report_at", "data_dir", "texts_dir", "include_path"}
        ),
        "code": identity.own_code([config.evaluation.target]),
    }


def check_target_knows(config: Config, target: Evaluation) -> None:
    """Check that there is something to unlearn.

    Raises:
        ConfigError: the target knows the forget set less well than it must.
    """
    metric, least = config.dataset.known_by, config.target.min_known
    if not config.unlearn or config.model.weights == "random":
        return
    if metric not in target.metrics:
        raise ConfigError(
            f"dataset.known_by={metric}: the suite has no such metric; it has "
            f"{', '.join(sorted(target.metrics))}"
        )
    known = target.metrics[metric]
    if known < least:
        raise ConfigError(
            f"the target does not know the forget set: its {metric} is {known:.3f}, less than "
            f"target.min_known={least} (the threshold of dataset {config.dataset.label}); give a "
            "model fine-tuned on it (target.path=DIR), have one fine-tuned here (target.path=null), or "
            "lower the threshold"
        )


def evaluate_curve(
    outcome: Outcome,
    config: Config,
    inputs: Inputs,
    workspace: Workspace,
    evaluations: Evaluations,
) -> list[CurvePoint]:
    """Evaluate what a method left along its way, beginning with the target at step 0."""
    points = [_told("target", 0, 0, evaluations["target"], evaluations, inputs)]
    if config.evaluation.curve == "none":
        return points
    stopped = "success" in outcome.report.training
    for moment in outcome.curve:
        last = moment is outcome.curve[-1]
        depth: Depth = config.evaluation.curve
        if stopped and last and depth != "full":
            depth = "before_stop"
        name = f"{moment.subject.name} after update {moment.step}"
        subject, compared = replace(moment.subject, name=name), evaluations.get("reference")
        found = evaluate_subject(subject, config, inputs, workspace, compared, depth)
        points.append(_told("unlearned", moment.step, moment.epoch, found, evaluations, inputs))
    return points


def reported_too(outcome: Outcome, config: Config) -> list[Subject]:
    """Return the moment that the released script reports, where it is not the end and it is asked for.

    That is the last one within the recipe's epochs: update 5, 30 or 60 of TOFU's forget01, 05 and 10, whose
    ends are 6, 31 and 62 (csm9493/efficient-llm-unlearning, ``TOFU/scripts``).
    """
    epochs = outcome.report.training.get("max_epochs", 0)
    if config.evaluation.report_at is None or outcome.epoch <= epochs:
        return []
    within = [moment for moment in outcome.curve if moment.epoch <= epochs]
    return [replace(m.subject, name=f"{m.subject.name}@{m.step}") for m in within[-1:]]


def end_of_curve(outcome: Outcome, evaluations: Evaluations, inputs: Inputs) -> CurvePoint:
    """Return the last point of a curve: the unlearned model itself."""
    final = evaluations["unlearned"]
    return _told("unlearned", outcome.step, outcome.epoch, final, evaluations, inputs)


def _told(
    model: str,
    step: int,
    epoch: float,
    found: Evaluation,
    evaluations: Evaluations,
    inputs: Inputs,
) -> CurvePoint:
    """Return a point of the curve, and tell who follows."""
    tell(Measured(step, epoch, found.metrics))
    compared = evaluations.get("reference")
    halves = metrics_of_halves(
        found.examples, compared.examples if compared else None, inputs.suite
    )
    return CurvePoint(model=model, step=step, epoch=epoch, metrics=found.metrics, halves=halves)


def _inference(subject: Subject, config: Config, inputs: Inputs) -> Inference:
    log.info("evaluating %s", subject.name)
    model = subject.load()  # type: ignore[misc]  # one without a model is not asked
    if not subject.reads_prompts:
        try:
            check_head(model)
        except ModelError as error:
            raise ModelError(
                f"{subject.name}: {error}. A method or an attack that changes logits says so: "
                "Subject(..., reads_prompts=True), and is asked for the logits themselves"
            ) from error
    return Inference(
        model,
        inputs.tokenizer,
        batch_tokens=config.evaluation.batch_tokens,
        max_length=inputs.max_length,
        stop_at_eos=config.model.stop_at_eos,
        reads_prompts=subject.reads_prompts,
    )


def _evaluation_of_log(subject: Subject, inputs: Inputs) -> Evaluation:
    read = inputs.suite.read_log
    if read is None:
        raise ConfigError(f"{subject.name}: the suite of this dataset knows no published logs")
    return read(str(subject.path))
