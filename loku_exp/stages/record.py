"""How a run fills its record."""

import resource
import sys
from typing import Any

import torch

from loku_exp.config.schema import Config
from loku_exp.evaluation.harness import Evaluation
from loku_exp.methods.stop_rule import around_the_stop
from loku_exp.methods.unlearning import Unlearned
from loku_exp.results import folder as runs
from loku_exp.results.schema import CurvePoint, ModelPart, Record, RunPart
from loku_exp.results.verdict import collapsed, extraction_verdict, verdict
from loku_exp.stages.bases import Base
from loku_exp.stages.inputs import Materials


def assemble(
    config: Config,
    materials: Materials,
    *,
    run: str,
    started: str,
    bases: dict[Any, Base],
    evaluations: dict[str, Evaluation],
    unlearned: Unlearned | None,
    curve: list[CurvePoint],
    reload_difference: float | None,
    seconds: dict[str, float],
) -> Record:
    """Fill the record of a finished run.

    Args:
        config: of the run.
        materials: of the run.
        run: its id.
        started: ISO time.
        bases: target and reference, where they are models.
        evaluations: by role.
        unlearned: None where the run only evaluates.
        curve: the unlearned model along the way.
        reload_difference: largest difference of a logit between the model in memory and reloaded.
        seconds: wall time by stage.
    """
    models = {
        role: ModelPart(
            role=role,
            weights=_weights(role, bases),
            derived_from="target" if role == "unlearned" else None,
            metrics=evaluation.metrics,
        )
        for role, evaluation in evaluations.items()
    }
    training = _training(config, unlearned, curve)
    return Record(
        schema_version=1,
        run=RunPart(
            id=run,
            choices=_choices(config),
            seed=config.seed,
            toy=config.dataset.toy or config.model.kind == "toy",
            label=_label(config),
            started=started,
            state="finished",
            **runs.provenance(),
        ),
        protocol=_protocol(config, materials, evaluations["target"], unlearned),
        models=models,
        curve=curve,
        training=training | {"reload_difference": reload_difference},
        init=_init(config, unlearned),
        cost=_cost(unlearned, seconds),
        verdict=_verdict(config, evaluations, training) if unlearned is not None else None,
    )


def _verdict(config: Config, evaluations: dict[str, Evaluation], training: dict[str, Any]) -> str:
    unlearned, target = evaluations["unlearned"], evaluations["target"]
    collapse = collapsed(
        unlearned.metrics,
        target.metrics,
        _retain_generations(unlearned),
        _retain_generations(target),
    )
    if "forget_ma" in unlearned.metrics:
        return extraction_verdict(unlearned.metrics, target.metrics, training, collapse=collapse)
    return verdict(
        unlearned.metrics,
        target.metrics,
        collapse=collapse,
        pretrained=config.model.kind != "from_scratch",
    )


def _weights(role: str, bases: dict[Any, Base]) -> str:
    """Return how a model's weights came about; the unlearned one is the target's kind."""
    base = bases.get("target" if role == "unlearned" else role)
    return base.weights if base else "published_log"


def _retain_generations(evaluation: Evaluation) -> list[str]:
    rows = evaluation.examples
    return [row["generation"] for row in rows if row["set"] == "retain" and "generation" in row]


def _choices(config: Config) -> dict[str, Any]:
    choices: dict[str, Any] = {"model": config.model.name, "dataset": config.dataset.label}
    if not config.unlearn:
        return choices
    return choices | {
        "loss": config.loss.name,
        "init": config.init.name if config.init else None,
        "lora.rank": config.lora.rank,
        "lora.targets": config.lora.targets,
        "training.recipe": config.training.recipe,
    }


def _label(config: Config) -> str:
    labels = ["TOY data"] if config.dataset.toy else []
    if config.model.weights == "random":
        labels.append("RANDOM weights, for timing only")
    elif config.model.kind == "toy":
        labels.append("TOY model")
    elif config.model.kind == "from_scratch":
        labels.append("small model trained FROM SCRATCH")
    return ", ".join(labels)


def _protocol(
    config: Config, materials: Materials, target: Evaluation, unlearned: Unlearned | None
) -> dict[str, Any]:
    protocol = (
        materials.corpus.protocol
        | materials.suite.protocol
        | {
            "rows": target.counts,
            "reference": config.reference.source,
            "tasks": config.evaluation.tasks,
            "limit": config.evaluation.limit if materials.abilities else None,
            "data_digest": materials.corpus.digest(),
            "seeds": {
                "unlearning": config.seed,
                "target": config.target.seed,
                "reference": config.reference.seed,
            },
        }
    )
    if unlearned is not None:
        size = unlearned.plan.batch_size
        drawn = config.training.retain_batch_size or size
        protocol["updates"] = len(unlearned.history)
        protocol["examples_per_update"] = [size, drawn if "retain" in config.loss.inputs else 0]
        protocol["reduction"] = config.training.reduction
        protocol["micro_batch_size"] = config.training.micro_batch_size
        protocol["bucket"] = config.training.bucket
    return protocol


def _training(
    config: Config, unlearned: Unlearned | None, curve: list[CurvePoint]
) -> dict[str, Any]:
    if unlearned is None:
        return {}
    columns = ("forget_loss", "retain_loss", "grad_norm", "learning_rate")
    history = unlearned.history
    training: dict[str, Any] = {
        name: [entry[name] for entry in history] for name in columns if name in history[0]
    }
    clipped = [entry["grad_norm"] > config.training.max_grad_norm for entry in history]
    training |= {
        "clipped_share": sum(clipped) / len(clipped),
        "epochs": len(history) / unlearned.plan.updates_per_epoch,
        "max_epochs": config.training.epochs,
    }
    if unlearned.stop is not None:
        end = curve[-1]
        before = [p for p in curve if p.step == end.step - unlearned.plan.updates_per_epoch]
        training |= unlearned.stop | around_the_stop(
            unlearned.stop["thresholds"], end.metrics, before[0].metrics if before else None
        )
    return training


def _init(config: Config, unlearned: Unlearned | None) -> dict[str, Any] | None:
    if unlearned is None or config.init is None:
        return None
    return {"name": config.init.name} | config.init.knobs | unlearned.init_report


def _cost(unlearned: Unlearned | None, seconds: dict[str, float]) -> dict[str, Any]:
    cost: dict[str, Any] = {"seconds": {name: round(value, 2) for name, value in seconds.items()}}
    if torch.cuda.is_available():
        cost["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        cost["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if unlearned is not None:
        report = unlearned.init_report
        training = unlearned.history[-1].get("total_flops", 0)
        fisher, low_rank = report.get("fisher_flops", 0), report.get("low_rank_flops", 0)
        # The Fisher is measured once a model, forget set and estimator; ranks and losses share it.
        cost["flops"] = {
            "training": training,
            "fisher": fisher,
            "low_rank": low_rank,
            "total": training + low_rank + fisher,
            "total_with_shared_fisher": training + low_rank,
        }
        cost["trainable_parameters"] = unlearned.num_trainable
    return cost
