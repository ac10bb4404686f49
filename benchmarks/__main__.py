"""Run benchmarks, print their table beside its limits, and fail where a limit is missed by 30 %.

Usage:
    python -m benchmarks [losses] [step] [fisher] [fila] [extraction] [evaluation] [commands]

Without names: all but `commands`, which waits for whole runs. Parts bound by their processor run two at a
time, each in a process of its own; those bound by memory or using two threads run alone. Each
part's rows replace its last ones in ``benchmarks/results.json``; ``benchmarks/results.md`` shows all parts.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row, measured
from loku_exp.runtime.whole_files import write_text

TOGETHER = (("step", "fisher"), ("losses", "evaluation"), ("fila",), ("extraction",), ("commands",))
ALL = ("losses", "step", "fisher", "fila", "extraction", "evaluation", "commands")
RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(ALL)}")
    chosen = parser.parse_args().parts or [name for name in ALL if name != "commands"]
    if unknown := sorted(set(chosen) - set(ALL)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(ALL)}")
    parts = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    found: list[Row] = []
    began = time.perf_counter()
    # each process is forked from one that has imported everything and done nothing
    processes = get_context("forkserver")
    processes.set_forkserver_preload([f"benchmarks.{name}" for name in chosen])
    rounds = [[name for name in names if name in chosen] for names in TOGETHER]
    rounds = [names for names in rounds if names]
    for number, names in enumerate(rounds, 1):
        _progress(f"[{number}/{len(rounds)}] {', '.join(names)} ...")
        start = time.perf_counter()
        with ProcessPoolExecutor(len(names), processes, max_tasks_per_child=1) as pool:
            for name, (rows, where) in zip(names, pool.map(measured, names), strict=True):
                found += rows
                parts[name] = {"where": where, "rows": [_plain(row) for row in rows]}
        _progress(f" {time.perf_counter() - start:.0f} s\n")
    write_text(RESULTS, json.dumps(parts, indent=1) + "\n")
    write_text(RESULTS.with_suffix(".md"), markdown(parts))
    Console(width=140).print(_table(found))
    minutes = (time.perf_counter() - began) / 60
    failed = [row.name for row in found if row.verdict == "FAILED"]
    print(f"{minutes:.1f} minutes; missed by more than 30 %: {', '.join(failed) or 'none'}")
    if failed:
        raise SystemExit(1)


def _progress(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _plain(row: Row) -> dict[str, Any]:
    return asdict(row) | {"verdict": row.verdict, "limit": row.limit_text}


def _table(rows: list[Row]) -> Table:
    table = Table()
    for column in ("what", "value", "limit", "", "how measured"):
        table.add_column(column)
    for row in rows:
        value = f"{row.value:.2f} {row.unit}"
        table.add_row(row.name, value, row.limit_text, row.verdict, row.detail)
    return table


def markdown(parts: dict[str, Any]) -> str:
    """Return the table for people, with where it was measured."""
    lines = ["| what | value | limit | |", "|---|---|---|---|"]
    places: dict[str, list[str]] = {}
    for name in [name for name in ALL if name in parts]:
        for row in parts[name]["rows"]:
            value = f"{row['value']:.2f} {row['unit']}"
            lines.append(
                f"| {row['name']} ({row['detail']}) | {value} | {row['limit']} | {row['verdict']} |"
            )
        places.setdefault(_place(parts[name]["where"]), []).append(name)
    said = [f"{', '.join(names)}: {place}" for place, names in places.items()]
    return "\n\n".join(["\n".join(lines), *(said if len(places) > 1 else places)]) + "\n"


def _place(where: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    processor = f"{where['hardware']['processor']}, {where['hardware']['cores']} cores"
    return f"{processor}, one thread a process where no row says two; {packages}."


if __name__ == "__main__":
    main()
