"""Every file of a finished run and its cache, cut off or with one bit turned over, and all who read it."""

import shutil
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import Bench, Report, Trouble
from benchmarks.faults.work import WORKS, attempt, differences, left, run_in

# What holds no result: locks, the log, times, which code began the run.
NO_RESULT = (".lock", "run.log", "commit", "seconds.json")
READERS = ("the same command", "going on before its end", "a new run beside it", "export", "report")


def damage_everything(bench: Bench, share: float, report: Report) -> None:
    """Damage one file at a time, and let each program read it.

    Each must leave what it leaves of a whole file, or refuse by the file's name. That no reader noticed is
    right only where the file has no result.

    Args:
        bench: of the export, before which there is a finished run.
        share: of the files.
        report: told once a kind of damage.
    """
    bench.renew()
    run = run_in(bench.place)
    files = sorted(path for path in bench.place.rglob("*") if path.is_file())
    files = [file for file in files if not file.name.endswith(NO_RESULT) and file.stat().st_size]
    chosen = files[:: max(1, round(1 / share))]
    whole = {}
    for name in READERS:
        bench.renew()
        whole[name] = _read(bench, name, run)[2]
    for kind in (cut_off, flip):
        troubles: list[Trouble] = []
        for file in chosen:
            own, noticed = str(file.relative_to(bench.place)), False
            for name in READERS:
                bench.renew()
                kind(file)
                damaged = file.read_bytes()
                code, said, after = _read(bench, name, run)
                what = f"{kind.__name__} {own}, {name}"
                named = file.name in said or file.parent.name in said
                noticed |= named or not file.is_file() or file.read_bytes() != damaged
                if code and not named:
                    troubles.append((what, f"refused, unnamed: exit code {code}: {said[-300:]}"))
                if code == 0 and not named:
                    wrong = differences(whole[name], after)
                    troubles += [(what, text) for text in wrong if not text.endswith(own)]
            if not noticed:
                troubles.append((f"{kind.__name__} {own}", "no reader noticed"))
        report(f"files: {kind.__name__}", len(chosen), troubles)


def cut_off(file: Path) -> None:
    """Leave the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Turn one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _read(bench: Bench, name: str, run: Path) -> tuple[int, str, dict[str, Any]]:
    """Let a reader read; return its exit code, what it said, and what there is then."""
    if name == "going on before its end":
        for file in ("done.json", "metrics.json", "unlearning.json"):
            (run / file).unlink(missing_ok=True)
    if name == "a new run beside it":
        shutil.rmtree(run.parent)
    if name == "export":
        command = bench.command
    elif name == "report":
        command = ["loku_exp.report", str(run.parent), "--to", f"{bench.place}/report"]
    else:
        command = WORKS["run"].command(bench.place)
    ended = attempt(command, bench.place)
    page = bench.place / "report/report.html"
    said = ended.said + (page.read_text(errors="replace") if page.is_file() else "")
    return ended.code, said, left(bench.place)
