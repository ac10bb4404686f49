"""Every loss x vanilla and FILA on one seed, in one table.

Usage:
    python -m benchmarks.every_loss                                   on the toy
    python -m benchmarks.every_loss smollm2_losses [OVERRIDES...]     on SmolLM2

Runs what is not finished yet, prints the table as Markdown and writes it to ``benchmarks/PRESET.md``.
"""

from benchmarks import preset
from loku_exp.results import files as results
from loku_exp.results.schema import Record

SHOWN = {
    "forget_prob": "forget prob.",
    "retain_prob": "retain prob.",
    "model_utility": "model utility",
    "forget_quality": "forget quality p",
    "forget_ks": "KS distance",
    "forget_shift": "shift",
}


def main() -> None:
    name, overrides = preset.named("toy_losses")
    folders = preset.finished(name, overrides, sweep=True)
    preset.write(name, table([results.read(folder) for folder in folders]))


def table(records: list[Record]) -> str:
    by_choice = {(r.run.choices["loss"], r.run.choices["init"]): r for r in records}
    models = {f"*{role}*": records[0].models[role] for role in ("target", "reference")}
    for (loss, init), record in sorted(by_choice.items()):
        models[f"{loss}, {init}"] = record.models["unlearned"]
    lines = [
        f"| | {' | '.join(SHOWN.values())} | collapsed |",
        "|---" + "|---:" * len(SHOWN) + "|---|",
    ]
    for name, model in models.items():
        cells = [_shown(model.metrics.get(metric), metric) for metric in SHOWN]
        collapsed = "yes" if model.judgement and model.judgement.collapsed else ""
        lines.append(f"| {' | '.join([name, *cells])} | {collapsed} |")
    return "\n".join([*lines, "", preset.described(records[0].run), ""])


def _shown(value: float | None, metric: str) -> str:
    if value is None:
        return ""
    return f"{value:.0e}" if metric == "forget_quality" else f"{value:.2f}"


if __name__ == "__main__":
    main()
