"""Every attack on target, unlearned model and reference, in one table.

Usage:
    python -m benchmarks.every_attack                                    on the toy
    python -m benchmarks.every_attack smollm2_attacks [OVERRIDES...]     on SmolLM2

Runs what is not finished yet, prints two tables as Markdown, and writes them to ``benchmarks/PRESET.md``.
"""

from benchmarks import preset
from loku_exp.attacks.gains import EXCESS, RETEACH, excess
from loku_exp.results import files as results
from loku_exp.results.schema import Record

MODELS = ("target", "unlearned", "reference")
SHOWN = {"forget_prob": "forget prob.", "forget_rouge": "forget ROUGE"}
GAINS = {EXCESS: "excess", RETEACH: "gain"}
MEMORISED = {
    "forget_em": "exact memorisation",
    "forget_strength": "extraction strength",
    "mia_loss": "AUC of loss",
    "mia_zlib": "AUC of zlib",
    "mia_min_k": "AUC of min-k",
    "mia_min_k_plus": "AUC of min-k++",
    "mia_privleak": "privleak, %",
}


def main() -> None:
    name, overrides = preset.named("toy_attacks")
    (folder,) = preset.finished(name, overrides, sweep=False)
    record = results.read(folder)
    said = preset.described(record.run)
    preset.write(name, "\n".join([*attacks(record), "", *memorised(record), "", said, ""]))


def attacks(record: Record) -> list[str]:
    """Return a row for each attack: every model after it, and what it gives the unlearned one."""
    names = ["", *dict.fromkeys(name.partition("+")[2] for name in record.models if "+" in name)]
    titles = [f"{label}, {model}" for label in SHOWN.values() for model in MODELS]
    titles += [f"{kind} ({label})" for label in SHOWN.values() for kind in GAINS.values()]
    lines = [f"| after | {' | '.join(titles)} |", "|---" + "|---:" * len(titles) + "|"]
    for attack in names:
        after = {m: record.models[f"{m}+{attack}" if attack else m].metrics for m in MODELS}
        cells = [shown(after[model].get(metric)) for metric in SHOWN for model in MODELS]
        for metric in SHOWN:
            known = {kind: after["unlearned"].get(f"{metric}_{kind}") for kind in GAINS}
            if not attack:
                target, unlearned, reference = (after[model][metric] for model in MODELS)
                known[EXCESS] = excess(unlearned, reference, target, reference)
            cells += map(shown, known.values())
        lines.append(f"| {attack or '*no attack*'} | {' | '.join(cells)} |")
    return lines


def memorised(record: Record) -> list[str]:
    """Return a row for each score of memorisation and membership, not attacked."""
    lines = [f"| | {' | '.join(MODELS)} |", "|---" + "|---:" * len(MODELS) + "|"]
    for metric, label in MEMORISED.items():
        values = [record.models[model].metrics.get(metric) for model in MODELS]
        if any(value is not None for value in values):  # membership wants a holdout
            lines.append(f"| {label} | {' | '.join(map(shown, values))} |")
    return lines


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
