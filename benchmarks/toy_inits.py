"""IHL from every init at three rates, on one seed of the toy world, in one table.

Usage:
    python -m benchmarks.toy_inits

Runs what is not finished yet, prints the table as Markdown and writes it to ``benchmarks/toy_inits.md``.
"""

import subprocess
import sys
from pathlib import Path

from loku_exp.report.estimates import at_level
from loku_exp.results import files as results
from loku_exp.results import folder as runs
from loku_exp.results.schema import Record

OUTPUT = Path("outputs/toy_inits")
LEVEL = 0.45  # forget probability at which inits are compared; the toy reference has .43
RATE = "training.learning_rate"
HEAD = (
    "init",
    "share of norm",
    "FLOPs / training's",
    "forget prob.",
    "retain prob.",
    f"retain at forget {LEVEL}",
    "best rate",
    f"retain at forget {LEVEL}, best rate",
)


def main() -> None:
    command = [sys.executable, "-m", "loku_exp", "-m", "experiment=toy_inits"]
    subprocess.run([*command, f"output_dir={OUTPUT}"], check=True)
    folders = [path.parent for path in sorted(OUTPUT.glob(f"*/{runs.DONE}"))]
    text = table([(rate_of(folder), results.read(folder)) for folder in folders])
    Path("benchmarks/toy_inits.md").write_text(text)
    print(text)


def rate_of(folder: Path) -> float:
    from omegaconf import OmegaConf

    return float(OmegaConf.select(OmegaConf.load(folder / "config.yaml"), RATE))


def table(runs_at: list[tuple[float, Record]]) -> str:
    by_init: dict[str, dict[float, Record]] = {}
    for rate, record in runs_at:
        by_init.setdefault(str(record.run.choices["init"]), {})[rate] = record
    # every init has the same rates, else the one that was tried more often looks better
    rates = sorted(set.intersection(*(set(by_rate) for by_rate in by_init.values())))
    middle = rates[len(rates) // 2]
    lines = [f"| {' | '.join(HEAD)} |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    for init, by_rate in sorted(by_init.items()):
        cells = _cells({rate: by_rate[rate] for rate in rates}, middle)
        lines.append(f"| {' | '.join([init, *cells])} |")
    run = runs_at[0][1].run
    packages = ", ".join(f"{p} {run.packages[p]}" for p in ("torch", "transformers", "peft"))
    at = ", ".join(f"{rate:g}" for rate in rates)
    said = (
        f"Toy model, one seed ({run.seed}), rank 8, one thread, {packages}. The first columns are at a "
        f"rate of {middle:g}; the best of {at} keeps most of the retain set where the forget "
        f"probability first comes down to {LEVEL}, linear between epochs; a dash: it never does. One run "
        "each: no order of inits follows from it."
    )
    return "\n".join([*lines, "", said, ""])


def _cells(by_rate: dict[float, Record], middle: float) -> list[str]:
    record = by_rate[middle]
    metrics, flops = record.models["unlearned"].metrics, record.cost["flops"]
    kept = {rate: _kept(found) for rate, found in by_rate.items()}
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


def _kept(record: Record) -> float | None:
    points = sorted(record.curve, key=lambda point: point.step)
    path = [(p.metrics["forget_prob"], p.metrics["retain_prob"]) for p in points]
    return at_level(path, LEVEL)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
