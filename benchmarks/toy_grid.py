"""GA, GD and IHL x vanilla and FILA over three base seeds of the toy world, in one table.

Usage:
    python -m benchmarks.toy_grid

Runs what is not finished yet, prints the table as Markdown and writes it to ``benchmarks/toy_grid.md``.
"""

import itertools
import math
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

from loku_exp.evaluation.tofu.metrics import forget_quality
from loku_exp.results import files as results
from loku_exp.results.examples import read_examples
from loku_exp.results.schema import Record
from loku_exp.runtime.finished import DONE

OUTPUT = Path("outputs/toy_grid")
SHOWN = {
    "forget_prob": "forget prob.",
    "retain_prob": "retain prob.",
    "model_utility": "model utility",
    "log10_quality": "log10 forget quality",
    "forget_shift": "shift",
}
METHODS = [(loss, init) for loss in ("ga", "gd", "ihl") for init in ("vanilla", "fila")]


def main() -> None:
    command = [
        sys.executable,
        "-m",
        "loku_exp",
        "-m",
        "experiment=toy_grid",
        f"output_dir={OUTPUT}",
    ]
    subprocess.run(command, check=True)
    folders = [path.parent for path in sorted(OUTPUT.glob(f"*/{DONE}"))]
    text = table({folder: results.read(folder) for folder in folders})
    Path("benchmarks/toy_grid.md").write_text(text)
    print(text)


def table(records: dict[Path, Record]) -> str:
    seeds = sorted({record.run.seed for record in records.values()})
    by_method = {
        (record.run.choices["loss"], record.run.choices["init"], record.run.seed): record
        for record in records.values()
    }
    first = {record.run.seed: (folder, record) for folder, record in records.items()}
    where = first[seeds[0]][1].run
    lines = [
        "Toy world, toy model; mean ± standard deviation over base seeds "
        f"{', '.join(map(str, seeds))} (target, reference and unlearning).",
        "",
        "| | " + " | ".join(SHOWN.values()) + " | collapsed |",
        "|---" + "|---:" * (len(SHOWN) + 1) + "|",
    ]
    for role in ("target", "reference"):
        rows = [first[seed][1].models[role].metrics for seed in seeds]
        lines.append(f"| *{role}* | " + " | ".join(_cells(rows)) + " | |")
    for loss, init in METHODS:
        chosen = [by_method[loss, init, seed] for seed in seeds]
        rows = [record.models["unlearned"].metrics for record in chosen]
        collapsed = sum(bool(r.judgement and r.judgement.collapsed) for r in chosen)
        cells = " | ".join(_cells(rows))
        lines.append(f"| {loss.upper()}, {init} | {cells} | {collapsed} of {len(seeds)} |")
    ratios = {seed: _log_ratios(first[seed][0], "reference") for seed in seeds}
    pairs = itertools.combinations(seeds, 2)
    null = [forget_quality(list(ratios[a]), list(ratios[b]))[0] for a, b in pairs]
    quality = [first[seed][1].models["target"].metrics["forget_quality"] for seed in seeds]
    lines += [
        "",
        f"Target against reference, p by seed: {', '.join(f'{p:.1g}' for p in quality)}. "
        f"Reference against reference, p by pair of seeds: {', '.join(f'{p:.2g}' for p in null)}.",
        "",
        f"`python -m benchmarks.toy_grid`; {where.hardware['processor']}, one thread, "
        + ", ".join(f"{name} {where.packages[name]}" for name in ("torch", "transformers", "peft"))
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _cells(rows: list[dict[str, float]]) -> list[str]:
    cells = []
    for name in SHOWN:
        values = [_value(row, name) for row in rows]
        known = [value for value in values if value is not None]
        cells.append(f"{fmean(known):.2f} ± {stdev(known):.2f}" if len(known) > 1 else "")
    return cells


def _value(row: dict[str, float], name: str) -> float | None:
    if name == "log10_quality":
        quality = row.get("forget_quality")
        return None if quality is None else math.log10(quality)
    return row.get(name)


def _log_ratios(folder: Path, model: str) -> list[float]:
    rows = read_examples(folder)
    return [row["log_ratio"] for row in rows if row["model"] == model and row["set"] == "forget"]


if __name__ == "__main__":
    main()
