"""Run all benchmarks, print the table, write it as JSON, and fail where a limit is missed by 30 %.

Usage:
    python -m benchmarks [losses] [step] [fisher] [extraction] [evaluation] [commands]
"""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from loku_exp.runs import provenance

ALL = ("losses", "step", "fisher", "extraction", "evaluation", "commands")


def main() -> None:
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or list(ALL)
    where = provenance()
    found = []
    for name in chosen:
        found += importlib.import_module(f"benchmarks.{name}").rows()
    processor = where["hardware"]["processor"]
    table = Table(title=f"{processor}, one thread a process, torch {torch.__version__}")
    for column in ("what", "value", "limit", "", "how measured"):
        table.add_column(column)
    for row in found:
        value = f"{row.value:.2f} {row.unit}"
        table.add_row(row.name, value, row.limit_text, row.verdict, row.detail)
    Console(width=140).print(table)
    content = {
        "where": where,
        "rows": [asdict(row) | {"verdict": row.verdict, "limit": row.limit_text} for row in found],
    }
    Path("benchmarks/results.json").write_text(json.dumps(content, indent=1) + "\n")
    Path("benchmarks/results.md").write_text(markdown(content))
    if any(row.verdict == "FAILED" for row in found):
        raise SystemExit(1)


def markdown(content: dict[str, Any]) -> str:
    """Return the table for people, with where it was measured."""
    lines = ["| what | value | limit | |", "|---|---|---|---|"]
    for row in content["rows"]:
        value = f"{row['value']:.2f} {row['unit']}"
        lines.append(
            f"| {row['name']} ({row['detail']}) | {value} | {row['limit']} | {row['verdict']} |"
        )
    where = content["where"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    processor = f"{where['hardware']['processor']}, {where['hardware']['cores']} cores"
    return "\n".join([*lines, "", f"{processor}, one thread a process; {packages}."]) + "\n"


if __name__ == "__main__":
    main()
