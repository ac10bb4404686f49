"""Records of runs with the numbers of simple rules."""

from loku_exp.evaluation.catalogue import Judgement, Metric
from loku_exp.results.schema import CurvePoint, MachinePart, ModelPart, Record, RunPart

ROLES = ("target", "unlearned", "reference")


def value_of(metric: Metric, model: int) -> float:
    """A value of its own for every metric and model."""
    place = 0.011 * (sum(map(ord, metric.name)) % 37) + 0.09 * model
    return 1234.5 + 10_000 * place if metric.form == "perplexity" else round(0.1 + place, 4)


def record_of(catalogue: list[Metric], attacks: tuple[str, ...] = (), **changes) -> Record:
    """The record of a finished run whose target, unlearned model and reference were attacked."""
    models = {}
    names = [f"{r}+{a}" if a else r for a in ("", *attacks) for r in ROLES]
    for number, name in enumerate(names):
        role, _, attack = name.partition("+")
        reference = f"reference+{attack}" if attack else "reference"
        judgement = Judgement(success=False, collapsed=False, sentence=f"said of {name}")
        models[name] = ModelPart(
            role="attacked" if attack else role,
            weights="pretrained",
            derived_from=None if role != "unlearned" else "target",
            reference=None if role == "reference" else reference,
            metrics={metric.name: value_of(metric, number) for metric in catalogue},
            judgement=judgement if role == "unlearned" else None,
        )
    points = [
        CurvePoint(model="unlearned", epoch=e, step=6 * e, metrics=models["unlearned"].metrics)
        for e in range(3)
    ]
    choices = {"model": "phi", "dataset": "tofu", "method": "gradient", "loss": "ihl"}
    content = {
        "schema_version": 2,
        "run": RunPart(
            id="0123456789ab", choices=choices | {"init": "fila", "lora.rank": 8}, seed=0, toy=False,
            label="", commit=None, version="1", format=5, packages={}, hardware={}, started="now",
            state="finished",
        ),
        "machine": MachinePart(
            device="cpu", precision={}, attention="sdpa", threads=1, processes=1
        ),
        "protocol": {}, "catalogue": list(catalogue), "models": models, "curve": points,
        "training": {}, "init": None, "judgement": models["unlearned"].judgement,
        "notes": ["protocol: rows"], "cost": {},
    }  # fmt: skip
    return Record(**content | changes)
