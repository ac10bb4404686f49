"""Run folders without training: records in the shapes of TOFU and TDEC, with numbers from simple rules."""

import json
import math
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from loku_exp.evaluation.catalogue import Judgement, Metric, completed
from loku_exp.evaluation.tdec.judge import catalogue
from loku_exp.evaluation.tofu.judge import CATALOGUE
from loku_exp.results import files as results
from loku_exp.results.examples import EXAMPLES_FILE
from loku_exp.results.schema import CurvePoint, MachinePart, ModelPart, Record, RunPart
from loku_exp.runtime.finished import DONE

ROWS = {"forget01": 40, "forget05": 200, "forget10": 300}
STRENGTH = {"ga": 1.6, "gd": 1.0, "ihl": 0.9}


def tofu(
    root: Path,
    *,
    loss: str = "ihl",
    init: str | None = "fila",
    rank: int | None = 8,
    seed: int = 0,
    base: int = 0,
    split: str = "forget10",
    model: str = "phi",
    full_curve: bool = True,
    points: int = 5,
    quality: float | None = None,
    metrics: dict[str, float] | None = None,
    **changes: Any,
) -> Path:
    """A finished run in TOFU's shape; `changes` go into the protocol."""
    pull = STRENGTH.get(loss, 1.0) * (1.2 if init == "fila" else 0.8) * (1 + (rank or 64) / 64)
    noise = 0.02 * math.sin(7 * base + 3 * seed + len(loss) + (rank or 0))
    reference = _tofu_metrics(0.15, 0.92, 0.53) | {"forget_truth_ratio": 0.63}
    target = _tofu_metrics(0.93, 0.92, 0.52) | _compared(1e-15, 0.35, 0.8)
    curve = [CurvePoint(model="target", epoch=0, step=0, metrics=target)]
    for epoch in range(1, points + 1):
        share = epoch / points
        known = 0.93 * math.exp(-1.8 * pull * share) + noise
        kept = 0.92 - 0.08 * share**2 * pull**2
        gap = known - 0.15
        found = _tofu_metrics(known, kept, 0.52 * kept / 0.92)
        p = quality if quality and epoch == points else 10 ** (-20 * abs(gap))
        found |= _compared(min(1.0, p), min(1.0, abs(gap) / 2 + 0.03), gap)
        if not full_curve and epoch < points:
            found = {k: v for k, v in found.items() if "rouge" not in k and "utility" not in k}
        curve.append(CurvePoint(model="unlearned", epoch=epoch, step=12 * epoch, metrics=found))
    last = curve[-1].metrics | (metrics or {})
    curve[-1] = curve[-1].model_copy(update={"metrics": last})
    broken = last["retain_prob"] < 0.46
    judged = Judgement(
        success=last["forget_quality"] >= 0.05 and not broken,
        collapsed=broken,
        sentence="COLLAPSED (retain probability low)" if broken else "as the numbers say",
        utility="model_utility",
    )
    protocol = {
        "forget_split": split,
        "rows": {"forget": ROWS[split], "retain": 300, "authors": 100, "facts": 117},
        "truth_ratio": "geometric",
        "scoring": "answer and end-of-text labelled, loss per token",
        "data_digest": f"tofu-{split}",
        "updates": 62,
        "examples_per_update": [32, 32],
    }
    return _write(
        root, model, "tofu", loss, init, rank, seed, base, protocol | changes, target, last, reference,
        curve, judged, {}, _examples(noise, pull), CATALOGUE,
    )  # fmt: skip


def tdec(
    root: Path,
    *,
    loss: str = "ihl",
    init: str | None = "fila",
    rank: int | None = 16,
    targets: str = "all",
    seed: int = 0,
    base: int = 0,
    forget_set: int = 0,
    model: str = "gpt_neo_125m",
    success: bool | None = None,
    abilities: bool = True,
    epochs: int = 20,
    **changes: Any,
) -> Path:
    """A finished run in TDEC's shape; the stop rule is met where the numbers come below it."""
    speed = 0.09 * STRENGTH.get(loss, 1.0) * (1.3 if init == "fila" else 0.8)
    speed *= 1 + math.log2(rank or 64) / 8 - 0.08 * forget_set + (0.1 if targets == "all" else 0)
    limits = {"n": 10, "el": 0.05, "ma": 0.30, "el_error": 0.003, "ma_error": 0.006, "texts": 64}
    target = _tdec_metrics(0.95, 0.0, abilities)
    curve = [CurvePoint(model="target", epoch=0, step=0, metrics=target)]
    done = None
    for epoch in range(1, epochs + 1):
        cost = 0.02 * epoch * STRENGTH.get(loss, 1.0) * (0.6 if init == "fila" else 1.0)
        found = _tdec_metrics(0.95 * math.exp(-speed * epoch), cost, abilities and epoch == epochs)
        forgotten = found["forget_ma"] < 0.30 and found["forget_el10"] < 0.05
        curve.append(CurvePoint(model="unlearned", epoch=epoch, step=epoch, metrics=found))
        if success is None and forgotten:
            done = epoch
            break
    cost = 0.02 * len(curve) * STRENGTH.get(loss, 1.0) * (0.6 if init == "fila" else 1.0)
    last = _tdec_metrics(curve[-1].metrics["forget_ma"], cost, abilities)
    curve[-1] = curve[-1].model_copy(update={"metrics": last})
    succeeded = done is not None if success is None else success
    training = {
        "thresholds": limits,
        "success": succeeded,
        "epochs_to_forget": (done or epochs) if succeeded else None,
        "max_epochs": float(epochs),
    }
    judged = Judgement(
        success=succeeded,
        collapsed=False,
        sentence="forgotten" if succeeded else "NOT forgotten",
        utility="reasoning" if abilities else "sibling_ma",
        goals={"forget_ma": limits["ma"], "forget_el10": limits["el"]},
    )
    protocol = {
        "forget_split": f"32_{forget_set}",
        "rows": {"forget": 32, "sibling": 32, "retain": 32, "unseen": 64},
        "scoring": "all tokens labelled",
        "el_n": [10],
        "abilities": ["reasoning"] if abilities else [],
        "data_digest": f"tdec-{forget_set}",
        "updates": len(curve) - 1,
        "examples_per_update": [32, 32],
    }
    return _write(
        root, model, "tdec", loss, init, rank, seed, base, protocol | changes, target, last, None,
        curve, judged, training, [], catalogue([10], 200, 50), targets,
    )  # fmt: skip


def _tofu_metrics(forget: float, retain: float, utility: float) -> dict[str, float]:
    return {
        "forget_prob": forget,
        "forget_rouge": min(1.0, forget + 0.1),
        "forget_truth_ratio": 0.5,
        "retain_prob": retain,
        "retain_rouge": retain,
        "retain_truth_ratio": 0.48,
        "authors_prob": 0.38 * retain,
        "facts_prob": 0.41 * retain,
        "model_utility": utility,
        "model_utility_retain": 0.7 * retain,
    }


def _compared(p: float, ks: float, shift: float) -> dict[str, float]:
    return {"forget_quality": p, "forget_ks": ks, "forget_shift": shift}


def _tdec_metrics(ma: float, cost: float, abilities: bool) -> dict[str, float]:
    found = {
        "forget_ma": ma,
        "forget_el10": ma**2 * 0.5,
        "forget_loss": 3 * (1 - ma),
        "sibling_ma": 0.95 * (1 - cost),
        "sibling_el10": 0.4 * (1 - cost),
        "retain_loss": 3.0 + cost,
        "unseen_ma": 0.30,
    }
    if abilities:
        found |= {"reasoning": 0.44 * (1 - cost / 3), "dialogue": 0.09 * (1 - cost)}
        found |= {"pile_ppl": 17.0 * (1 + cost)}
    return found


def _examples(noise: float, pull: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for model in ("reference", "target", "unlearned"):
        for name in ("forget", "retain"):
            for row in range(12):
                know = 0.1 if model == "target" else pull * (1.5 if name == "forget" else 0.1)
                loss = know + 0.05 * math.sin(5 * row) + noise
                rows.append(
                    {
                        "model": model,
                        "set": name,
                        "row": row,
                        "group": f"author {row // 4}",
                        "tokens": 9 + row,
                        "loss": loss,
                        "log_ratio": 1 - loss,
                        "generation": f" {model} says {row}",
                    }
                )
    return rows


def _write(
    root: Path, model: str, dataset: str, loss: str, init: str | None, rank: int | None, seed: int,
    base: int, protocol: dict[str, Any], target: dict[str, float], last: dict[str, float],
    reference: dict[str, float] | None, curve: list[CurvePoint], judged: Judgement,
    training: dict[str, Any], examples: list[dict[str, Any]], words: Any, targets: str = "all",
) -> Path:  # fmt: skip
    name = f"{model}-{dataset}-{loss}-{init}-r{rank}-{targets}-{protocol['data_digest']}-s{seed}-b{base}"
    folder = root / name
    folder.mkdir(parents=True)
    models = {"target": target, "unlearned": last} | ({"reference": reference} if reference else {})
    record = Record(
        schema_version=2,
        run=RunPart(
            id=name, seed=seed, toy=False, label="", commit="0123456789ab", version="0.1.0", format=2,
            packages={}, hardware={}, started=f"2026-01-01T00:00:{seed:02d}+00:00", state="finished",
            choices={
                "model": model, "dataset": dataset, "method": "gradient", "loss": loss,
                "init": init, "lora.rank": rank,
                "lora.targets": targets, "training.recipe": dataset,
            },
        ),
        protocol={"seeds": {"unlearning": seed, "target": base, "reference": base}, "limit": None}
        | protocol,
        machine=MachinePart(device="cpu", precision={}, attention="", threads=1, processes=1),
        catalogue=completed(words, {name for metrics in models.values() for name in metrics}),
        models={
            role: ModelPart(
                role=role, weights="finetuned_here", derived_from=None, metrics=metrics,
                reference="reference" if reference and role != "reference" else None,
                judgement=judged if role == "unlearned" else None,
            )
            for role, metrics in models.items()
        },
        curve=curve,
        training=training,
        init=None,
        cost={"flops": {
            "training": 1e14 * len(curve), "fisher": 3e13 if init == "fila" else 0,
            "low_rank": 1e12 if init == "fila" else 0, "total": 0, "total_with_shared_fisher": 0},
            "seconds": {"training": 1.0}},
        judgement=judged,
        notes=[],
    )  # fmt: skip
    config = {"training": {"learning_rate": 2e-4}, "loss": {"_target_": f"x.{loss}"}, "seed": seed}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    write_record(folder, record, examples)
    return folder


def write_record(
    folder: Path, record: Record, examples: list[dict[str, Any]] | None = None
) -> None:
    """Write a record as a run does, and mark the run as finished."""
    folder.mkdir(parents=True, exist_ok=True)
    content = record.model_dump(mode="json")
    content = {"schema": content.pop("schema_version"), **content}
    (folder / results.METRICS_FILE).write_text(json.dumps(content, allow_nan=False))
    lines = [json.dumps(row) + "\n" for row in examples or []]
    (folder / EXAMPLES_FILE).write_text("".join(lines))
    (folder / DONE).write_text("{}")


def own_suite(root: Path, **values: float) -> list[Path]:
    """Runs of a suite of a user's own: one metric, said to be known of the forget set, and no reference.

    Args:
        root: of the runs.
        values: of the metric, by the name of a user's method.
    """
    folders = []
    words = [
        Metric(name="spells", label="spells known", form="count", part="knowledge", summary=True)
    ]
    for method, value in values.items():
        folders.append(tofu(root, seed=len(folders)))
        record = results.read(folders[-1])
        choices = {"model": "owl", "dataset": "spells", "method": method}
        judged = Judgement(success=value < 3, collapsed=False, sentence=f"knows {value:g} spells")
        models = {
            role: record.models[role].model_copy(
                update={"metrics": {"spells": v}, "reference": None, "judgement": said}
            )
            for role, v, said in (("target", 9.0, None), ("unlearned", value, judged))
        }
        changed = {"catalogue": words, "models": models, "judgement": judged, "curve": []}
        changed |= {"run": record.run.model_copy(update={"choices": choices}), "training": {}}
        cost = {"seconds": {"training": 1.0}}
        write_record(
            folders[-1], record.model_copy(update=changed | {"cost": cost, "protocol": {}})
        )
    return folders


def edit(folder: Path, change: Any) -> Path:
    """Apply a change to the record of a run folder, and return it."""
    file = folder / results.METRICS_FILE
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return folder
