"""Every model of a run under the suite: target, reference, the curve, the unlearned model."""

import json
import logging
from typing import Any

from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError
from loku_exp.evaluation.harness import Evaluation, evaluate, limits
from loku_exp.evaluation.lm.responses import Replay
from loku_exp.evaluation.tofu import published_log as published
from loku_exp.evaluation.tofu.suite import Suite
from loku_exp.methods.adapter import load_trained
from loku_exp.methods.unlearning import Snapshot, Unlearned
from loku_exp.results.schema import CurvePoint
from loku_exp.runtime.cache import Cache, write_text
from loku_exp.runtime.events import Measured, tell
from loku_exp.stages.bases import Base, Role, cached_responses
from loku_exp.stages.inputs import Materials, language_model

log = logging.getLogger(__name__)
Evaluations = dict[str, Evaluation]


def read_published(config: Config, materials: Materials) -> Evaluation | None:
    """Return the reference's evaluation from a published log, where the run names one.

    Raises:
        DataError: it is no such log, or of other rows.
    """
    if config.reference.source != "log":
        return None
    path = str(config.reference.path)
    if not isinstance(materials.suite, Suite):
        raise ConfigError(
            f"reference.source=log: published logs are TOFU's; dataset {config.dataset.label} has none"
        )
    content = published.read_log(path)
    published.check_same_rows(content, materials.suite.sets(), path)
    examples = [
        {
            "set": name,
            "row": row.row,
            "tokens": row.tokens[0],
            "loss": row.loss,
            "log_ratio": ratio,
            "generation": row.generation,
        }
        for name, rows in content.items()
        for row, ratio in zip(rows, published.log_ratios(rows).values(), strict=True)
    ]
    counts = {name: len(rows) for name, rows in content.items()}
    return Evaluation(published.score(content), counts, examples)


def assess_bases(
    bases: dict[Role, Base],
    log_of_reference: Evaluation | None,
    config: Config,
    materials: Materials,
    cache: Cache,
) -> Evaluations:
    """Evaluate reference and target from what they answered when they were made."""
    evaluations: Evaluations = {}
    if log_of_reference is not None:
        evaluations["reference"] = log_of_reference
    for role in ("reference", "target"):
        if role in bases:
            answers = cached_responses(bases[role], config, materials, cache)
            tasks = _full_suite(materials, evaluations.get("reference"))
            limit = limits(materials.abilities, config.evaluation.limit)
            evaluations[role] = evaluate(Replay(answers), tasks, limit)
    return evaluations


def check_target_knows(config: Config, target: Evaluation) -> None:
    """Check that there is something to unlearn.

    Raises:
        ConfigError: the target knows the forget set less well than it must.
    """
    metric = config.dataset.known_by
    known, least = target.metrics[metric], config.target.min_known
    if config.unlearn and config.model.weights != "random" and known < least:
        raise ConfigError(
            f"the target does not know the forget set: its {metric} is {known:.3f}, less than "
            f"target.min_known={least} (the threshold of dataset {config.dataset.label}); give a "
            "model fine-tuned on it (target.path=DIR), have one fine-tuned here (target.path=null), or "
            "lower the threshold"
        )


def assess_curve(
    unlearned: Unlearned, config: Config, materials: Materials, evaluations: Evaluations
) -> list[CurvePoint]:
    """Evaluate every snapshot but the last with the reduced suite; the model is left at the last.

    A snapshot keeps its metrics, so that an interrupted run does not evaluate it again. The curve
    begins with the target at step 0.
    """
    reference = evaluations.get("reference")
    points = [CurvePoint(model="target", epoch=0, step=0, metrics=evaluations["target"].metrics)]
    tell(Measured(0, 0, evaluations["target"].metrics))
    if config.evaluation.curve == "none":
        return points
    for snapshot in unlearned.snapshots[:-1]:
        # The values one epoch before a stop are part of the result, EL of the forget set among them.
        before_stop = unlearned.stop is not None and snapshot == unlearned.snapshots[-2]
        kind = config.evaluation.curve + ("-before-stop" if before_stop else "")
        file = snapshot.folder / f"metrics-{kind}.json"
        if not file.is_file():
            log.info("evaluating the snapshot after update %d", snapshot.step)
            load_trained(unlearned.model, snapshot.folder)
            tasks = materials.suite.tasks(reference, full=config.evaluation.curve == "full")
            if before_stop:
                whole = materials.suite.tasks(reference)
                tasks = [
                    whole[k] if whole[k].task_name == "forget" else t for k, t in enumerate(tasks)
                ]
            lm = language_model(unlearned.model, config, materials)
            write_text(file, json.dumps(evaluate(lm, tasks).metrics))
        metrics = json.loads(file.read_text())
        tell(Measured(snapshot.step, snapshot.epoch, metrics))
        points.append(curve_point(snapshot, metrics))
    load_trained(unlearned.model, unlearned.snapshots[-1].folder)
    return points


def assess_unlearned(
    unlearned: Unlearned, config: Config, materials: Materials, evaluations: Evaluations
) -> Evaluation:
    """Evaluate the unlearned model with the full suite."""
    log.info("evaluating the unlearned model")
    tasks = _full_suite(materials, evaluations.get("reference"))
    lm = language_model(unlearned.model, config, materials)
    found = evaluate(lm, tasks, limits(materials.abilities, config.evaluation.limit))
    last = unlearned.snapshots[-1]
    tell(Measured(last.step, last.epoch, found.metrics))
    return found


def curve_point(snapshot: Snapshot, metrics: dict[str, float]) -> CurvePoint:
    """Return the point of the curve a snapshot makes."""
    return CurvePoint(model="unlearned", epoch=snapshot.epoch, step=snapshot.step, metrics=metrics)


def _full_suite(materials: Materials, reference: Evaluation | None) -> list[Any]:
    return [*materials.suite.tasks(reference), *materials.abilities]
