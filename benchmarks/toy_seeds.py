"""Whether the first run says the same whatever seed and precision: its verdict and its arrows, counted.

Usage:
    python -m benchmarks.toy_seeds

Runs what is not finished yet of ``experiment=toy_seeds``, prints two tables as Markdown and writes them to
``benchmarks/toy_seeds.md``. Exit code 1 where verdicts differ, or an arrow points up in one run and down in
another (``=`` and ``≈`` point nowhere).
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from loku_exp.evaluation.catalogue import Metric
from loku_exp.results import files as results
from loku_exp.results.schema import Record
from loku_exp.results.table import header_and_rows
from loku_exp.runtime.finished import DONE

OUTPUT = Path("outputs/toy_seeds")
PRECISIONS = {"none": "fp32", "bfloat16": "bf16"}
ARROWS = "↑↓≈="


def main() -> int:
    command = [sys.executable, "-m", "loku_exp", "-m", "experiment=toy_seeds"]
    command.append(f"output_dir={OUTPUT}")
    subprocess.run(command, check=True)
    records = [results.read(path.parent) for path in OUTPUT.glob(f"*/{DONE}")]
    records.sort(key=lambda record: (list(PRECISIONS).index(_autocast(record)), record.run.seed))
    text = tables(records)
    Path("benchmarks/toy_seeds.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all_the_same(records) else 1


def tables(records: Sequence[Record]) -> str:
    """Return one table with a row a run, and one with a row a metric, as Markdown."""
    where = records[0].run
    lines = [
        "| | success | p | KS distance | shift | forget prob. (reference) | retain prob. (reference) "
        "| model utility (target, reference) |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *(_run(record) for record in records),
        "",
        f"| {len(records)} runs | unlearned | reference | arrow |",
        "|---|---:|---:|---|",
        *(_metric(metric, records) for metric in compared(records[0])),
        "",
        f"`python -m benchmarks.toy_seeds`; {where.hardware['processor']}, one thread, "
        + ", ".join(f"{name} {where.packages[name]}" for name in ("torch", "transformers", "peft"))
        + ".",
    ]
    return "\n".join(lines) + "\n"


def compared(record: Record) -> list[Metric]:
    """Return the metrics that tables show with an arrow."""
    return [
        metric
        for metric in record.catalogue
        if metric.better == "reference" and metric.name in record.models["reference"].metrics
    ]


def arrow(record: Record, metric: Metric) -> str:
    """Return the arrow of a metric as the run's own table shows it, without its distance."""
    header, rows = header_and_rows(record, arrows="side")
    (row,) = (row for row in rows if row[0] == metric.label)
    shown = row[header.index("unlearned")][-1:]
    return shown if shown in ARROWS else ""


def all_the_same(records: Sequence[Record]) -> bool:
    """Return whether the verdict is the same in every run, and no arrow points both ways."""
    verdicts = {
        record.judgement and (record.judgement.success, record.judgement.collapsed)
        for record in records
    }
    ways = [{arrow(record, metric) for record in records} for metric in compared(records[0])]
    return len(verdicts) == 1 and not any({"↑", "↓"} <= seen for seen in ways)


def _run(record: Record) -> str:
    target, unlearned, reference = (
        record.models[name].metrics for name in ("target", "unlearned", "reference")
    )
    judged = record.judgement
    assert judged is not None
    said = ("yes" if judged.success else "no") + (", COLLAPSED" if judged.collapsed else "")
    cells = [
        f"{PRECISIONS[_autocast(record)]}, seed {record.run.seed}",
        said,
        f"{unlearned['forget_quality']:.0e}",
        f"{unlearned['forget_ks']:.2f}",
        f"{unlearned['forget_shift']:+.2f}",
        *(f"{unlearned[n]:.3f} ({reference[n]:.3f})" for n in ("forget_prob", "retain_prob")),
        f"{unlearned['model_utility']:.3f} ({target['model_utility']:.3f}, "
        f"{reference['model_utility']:.3f})",
    ]
    return f"| {' | '.join(cells)} |"


def _metric(metric: Metric, records: Sequence[Record]) -> str:
    counts = Counter(arrow(record, metric) for record in records)
    spans = [
        _span([record.models[name].metrics[metric.name] for record in records])
        for name in ("unlearned", "reference")
    ]
    arrows = ", ".join(f"{sign} {count}" for sign, count in counts.most_common())
    return f"| {metric.label} | {' | '.join(spans)} | {arrows} |"


def _span(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def _autocast(record: Record) -> str:
    return record.machine.precision["finetuning"]


if __name__ == "__main__":
    raise SystemExit(main())
