"""IHL from every init at three rates, on one seed, in one table.

Usage:
    python -m benchmarks.every_init                                  on the toy
    python -m benchmarks.every_init smollm2_inits [OVERRIDES...]     on SmolLM2

Runs what is not finished yet, prints the table as Markdown and writes it to ``benchmarks/PRESET.md``.
"""

from pathlib import Path

from benchmarks import preset
from loku_exp.report.estimates import at_level
from loku_exp.results import files as results
from loku_exp.results.schema import Record

# Forget probability at which inits are compared: above the reference's .43 on the toy, .11 on SmolLM2.
LEVELS = {"toy_inits": 0.45, "smollm2_inits": 0.35}
RATE = "training.learning_rate"
HEAD = (
    "init",
    "share of norm",
    "FLOPs / training's",
    "forget prob.",
    "retain prob.",
    "retain at forget {level}",
    "best rate",
    "retain at forget {level}, best rate",
)


def main() -> None:
    name, overrides = preset.named("toy_inits")
    folders = preset.finished(name, overrides, sweep=True)
    found = [(rate_of(folder), results.read(folder)) for folder in folders]
    preset.write(name, table(found, LEVELS[name]))


def rate_of(folder: Path) -> float:
    from omegaconf import OmegaConf

    return float(OmegaConf.select(OmegaConf.load(folder / "config.yaml"), RATE))


def table(runs_at: list[tuple[float, Record]], level: float) -> str:
    by_init: dict[str, dict[float, Record]] = {}
    for rate, record in runs_at:
        by_init.setdefault(str(record.run.choices["init"]), {})[rate] = record
    # every init has the same rates, else the one that was tried more often looks better
    rates = sorted(set.intersection(*(set(by_rate) for by_rate in by_init.values())))
    middle = rates[len(rates) // 2]
    shown = len(HEAD) if len(rates) > 1 else len(HEAD) - 2  # of one rate none is the best
    head = " | ".join(HEAD[:shown]).format(level=level)
    lines = [f"| {head} |", "|---" + "|---:" * (shown - 1) + "|"]
    for init, by_rate in sorted(by_init.items()):
        cells = _cells({rate: by_rate[rate] for rate in rates}, middle, level)
        lines.append(f"| {' | '.join([init, *cells][:shown])} |")
    where = (
        f"where the forget probability first comes down to {level}, linear between epochs; a dash: it "
        "never does. One run each: no order of inits follows from it."
    )
    at = ", ".join(f"{rate:g}" for rate in rates)
    said = f"All at a rate of {at}; retain at forget {level}: {where}"
    if len(rates) > 1:
        best = f"the best of {at} keeps most of the retain set {where}"
        said = f"The first columns are at a rate of {middle:g}; {best}"
    said = f"{preset.described(runs_at[0][1].run)} {said}"
    return "\n".join([*lines, "", said, ""])


def _cells(by_rate: dict[float, Record], middle: float, level: float) -> list[str]:
    record = by_rate[middle]
    metrics, flops = record.models["unlearned"].metrics, record.cost["flops"]
    kept = {rate: _kept(found, level) for rate, found in by_rate.items()}
    reached = {rate: value for rate, value in kept.items() if value is not None}
    best = max(reached, key=lambda rate: reached[rate]) if reached else None
    return [
        f"{(record.init or {}).get('share_of_weight_norm', 0):.2f}",
        f"{(flops.get('fisher', 0) + flops.get('low_rank', 0)) / flops['training']:.2f}",
        f"{metrics['forget_prob']:.2f}",
        f"{metrics['retain_prob']:.2f}",
        _shown(kept[middle]),
        f"{best:g}" if best is not None else "–",
        _shown(reached[best] if best is not None else None),
    ]


def _kept(record: Record, level: float) -> float | None:
    points = sorted(record.curve, key=lambda point: point.step)
    path = [(p.metrics["forget_prob"], p.metrics["retain_prob"]) for p in points]
    return at_level(path, level)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
