"""Every loss x vanilla and FILA on one seed of the toy world, in one table.

Usage:
    python -m benchmarks.toy_losses

Runs what is not finished yet, prints the table as Markdown and writes it to ``benchmarks/toy_losses.md``.
"""

import subprocess
import sys
from pathlib import Path

from loku_exp.results import files as results
from loku_exp.results.schema import Record
from loku_exp.runtime.finished import DONE

OUTPUT = Path("outputs/toy_losses")
SHOWN = {
    "forget_prob": "forget prob.",
    "retain_prob": "retain prob.",
    "model_utility": "model utility",
    "forget_quality": "forget quality p",
    "forget_ks": "KS distance",
    "forget_shift": "shift",
}


def main() -> None:
    command = [sys.executable, "-m", "loku_exp", "-m", "experiment=toy_losses"]
    subprocess.run([*command, f"output_dir={OUTPUT}"], check=True)
    text = table([results.read(path.parent) for path in OUTPUT.glob(f"*/{DONE}")])
    Path("benchmarks/toy_losses.md").write_text(text)
    print(text)


def table(records: list[Record]) -> str:
    by_choice = {(r.run.choices["loss"], r.run.choices["init"]): r for r in records}
    models = {f"*{role}*": records[0].models[role] for role in ("target", "reference")}
    for (loss, init), record in sorted(by_choice.items()):
        models[f"{loss}, {init}"] = record.models["unlearned"]
    run = records[0].run
    lines = [
        f"| | {' | '.join(SHOWN.values())} | collapsed |",
        "|---" + "|---:" * len(SHOWN) + "|---|",
    ]
    for name, model in models.items():
        cells = [_shown(model.metrics.get(metric), metric) for metric in SHOWN]
        collapsed = "yes" if model.judgement and model.judgement.collapsed else ""
        lines.append(f"| {' | '.join([name, *cells])} | {collapsed} |")
    packages = ", ".join(f"{p} {run.packages[p]}" for p in ("torch", "transformers", "peft"))
    return "\n".join([*lines, "", f"Toy model, seed {run.seed}, one thread, {packages}.", ""])


def _shown(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{value:.0e}" if metric == "forget_quality" else f"{value:.2f}"


if __name__ == "__main__":
    main()
