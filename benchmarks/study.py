"""The runs of the study on SmolLM2 that ``docs/study/runs`` keeps, and the tables of them.

Usage:
    python -m benchmarks.study              write the tables, ``docs/study/runs.md``
    python -m benchmarks.study FOLDER       first keep the finished runs below FOLDER

What is kept of a run is its record and its configuration, paths cut to their last name: enough for
`loku_exp.claims` and `loku_exp.report`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from loku_exp.claims.reading import RATE
from loku_exp.claims.registered import read_claims
from loku_exp.report.collect import Run, collect
from loku_exp.report.estimates import at_level
from loku_exp.report.matched import curve_of
from loku_exp.results.files import METRICS_FILE
from loku_exp.runtime.finished import write_mark

STUDY = Path("docs/study")
CLAIMS = Path("docs/claims.yaml")
NAMES = {
    "gd": "GD", "ihl": "IHL", "ga": "GA", "fila": "FILA",
    "fila shuffled": "FILA with shuffled rows",
    "fila constant retain": "FILA with a constant retain Fisher",
}  # fmt: skip
OF_A_RUN = ("at the end: forget / retain", "retain at forget {level}", "reasoning", "model utility")
OF_BASES = ("forget at the end", "retain at the end", "retain at forget {level}", "reasoning")
OF_BASES_THEMSELVES = ("forget", "retain", "reasoning", "model utility", "made on")


def main(arguments: list[str]) -> None:
    runs = STUDY / "runs"
    if arguments:
        keep(collect(Path(arguments[0])).runs, runs)
    text = tables(collect(runs).runs, read_claims(CLAIMS).level)
    (STUDY / "runs.md").write_text(text)
    print(text)


def keep(found: Iterable[Run], into: Path) -> None:
    """Copy record and configuration of finished runs, each into a folder named by what it is."""
    for run in found:
        folder = into / name_of(run)
        folder.mkdir(parents=True, exist_ok=True)
        record = _without_places(json.loads((run.folder / METRICS_FILE).read_text()))
        (folder / METRICS_FILE).write_text(json.dumps(record, indent=1) + "\n")
        config = OmegaConf.to_container(OmegaConf.load(run.folder / "config.yaml"))
        (folder / "config.yaml").write_text(
            OmegaConf.to_yaml(OmegaConf.create(_without_places(config)))
        )
        write_mark(folder, run.record.run.id)


def name_of(run: Run) -> str:
    """Return what runs differ in: seeds of base and unlearning, loss, init, rank, layers, rate."""
    choices = run.record.run.choices
    layers = "" if choices["lora.targets"] == "all" else f"-{choices['lora.targets']}"
    init = choices["init"].replace("_", "-")
    rank, seed = (
        choices["lora.rank"],
        "" if _has_seed_of_base(run) else f"-seed{run.record.run.seed}",
    )
    return f"base{_base(run)}-{choices['loss']}-{init}-r{rank}{layers}-{run.config[RATE]:g}{seed}"


def tables(runs: list[Run], level: float) -> str:
    """Return tables as Markdown: ranks on base 0, settings over bases and over seeds of unlearning, bases.

    Args:
        runs: of the study.
        level: forget probability at which what is kept is read too.
    """
    bases = sorted({_base(run) for run in runs})
    once = [run for run in runs if _has_seed_of_base(run)]
    usual = [r for r in once if r.config[RATE] == 0.003 and r.keys["lora.targets"] == "all"]
    grid = [r for r in usual if _base(r) == 0 and r.keys["init"] in ("vanilla", "fila")]
    grid = sorted((r for r in grid if r.keys["loss"] != "ga"), key=_in_grid)
    ranks = [[f"{_method(r)}, rank {r.keys['lora.rank']}", *_cells(r, level)] for r in grid]
    of_bases = [
        [
            f"{_method(found[0])}, rank {found[0].keys['lora.rank']}",
            f"{found[0].config[RATE]:g}",
            *cells,
        ]
        for found, cells in _over(once, _base, bases, level)
        if len(found) > 1 or _base(found[0])  # ranks that base 0 alone has stand above
    ]
    again = {_base(run) for run in runs if not _has_seed_of_base(run)}
    numbers = ", ".join(str(base) for base in bases)
    return "\n\n".join(
        (
            _markdown(["base 0, rate 0.003", *OF_A_RUN], ranks, level),
            _markdown([f"bases {numbers}", "rate", *OF_BASES], of_bases, level),
            *(_of_seeds([r for r in runs if _base(r) == base], base, level) for base in sorted(again)),
            _of_bases_themselves(runs, bases),
        )
    ) + "\n"  # fmt: skip


def _of_seeds(runs: list[Run], base: int, level: float) -> str:
    """Return the settings that ran with several seeds of unlearning on one base."""
    seeds = sorted({run.record.run.seed for run in runs})
    rows = [
        [
            f"{_method(found[0])}, rank {found[0].keys['lora.rank']}",
            f"{found[0].config[RATE]:g}",
            *cells,
        ]
        for found, cells in _over(runs, _seed, seeds, level)
        if len(found) > 1
    ]
    numbers = ", ".join(str(seed) for seed in seeds)
    return _markdown([f"base {base}, unlearning seeds {numbers}", "rate", *OF_BASES], rows, level)


def _over(
    runs: list[Run], varied: Callable[[Run], int], values: list[int], level: float
) -> Iterator[tuple[list[Run], list[str]]]:
    """Yield the runs of each setting, and its cells, a number for each value of what is varied."""
    by_setting: dict[tuple[Any, ...], dict[int, Run]] = {}
    for run in sorted(runs, key=_in_settings):
        setting = (_method(run), run.keys["lora.rank"], run.config[RATE])
        by_setting.setdefault(setting, {})[varied(run)] = run
    for found in by_setting.values():
        yield list(found.values()), _over_all([found.get(value) for value in values], level)


def _of_bases_themselves(runs: list[Run], bases: list[int]) -> str:
    of = {base: next(run.record for run in runs if _base(run) == base) for base in bases}
    names = ("forget_prob", "retain_prob", "reasoning_local", "model_utility")

    def made_on(base: int) -> str:
        hardware = of[base].run.hardware
        return str(hardware["accelerator"] or hardware["processor"])

    rows = [
        [
            f"base {base}, {role}",
            *(_shown(of[base].models[role].metrics.get(name)) for name in names),
            made_on(base),
        ]
        for base in bases
        for role in ("target", "reference")
    ]
    return _markdown(["", *OF_BASES_THEMSELVES], rows, 0)


def _cells(run: Run, level: float) -> list[str]:
    end = run.record.models["unlearned"].metrics
    collapsed = " (collapsed)" if run.collapsed else ""
    return [
        f"{end['forget_prob']:.3f} / {end['retain_prob']:.3f}{collapsed}",
        _shown(_at(run, level)),
        _shown(end["reasoning_local"]),
        _shown(end["model_utility"]),
    ]


def _over_all(runs: list[Run | None], level: float) -> list[str]:
    def each(value: Any) -> str:
        return ", ".join(value(run) if run else "·" for run in runs)

    def end(name: str) -> Any:
        return lambda run: _shown(run.record.models["unlearned"].metrics[name])

    return [
        each(end("forget_prob")),
        each(lambda run: end("retain_prob")(run) + ("*" if run.collapsed else "")),
        each(lambda run: _shown(_at(run, level))),
        each(end("reasoning_local")),
    ]


def _at(run: Run, level: float) -> float | None:
    path = [(m["forget_prob"], m["retain_prob"]) for _, m in curve_of(run.record, "forget_prob")]
    return at_level(path, level)


def _method(run: Run) -> str:
    loss, init = run.keys["loss"], run.keys["init"].replace("_", " ")
    layers = "" if run.keys["lora.targets"] == "all" else f", {run.keys['lora.targets']} alone"
    return f"{NAMES[loss]}, {NAMES.get(init, init)}{layers}"


def _in_grid(run: Run) -> Any:
    return run.keys["loss"], run.keys["init"] != "vanilla", run.keys["lora.rank"]


def _in_settings(run: Run) -> Any:
    known = ("vanilla", "fila")
    init = run.keys["init"]
    place = known.index(init) if init in known else len(known)
    rank, layers = run.keys["lora.rank"], run.keys["lora.targets"]
    return run.keys["loss"], place, init, layers, rank, run.config[RATE], _base(run), _seed(run)


def _base(run: Run) -> int:
    return int(run.record.protocol["seeds"]["target"])


def _seed(run: Run) -> int:
    return run.record.run.seed


def _has_seed_of_base(run: Run) -> bool:
    return _seed(run) == _base(run)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _markdown(head: list[str], rows: list[list[str]], level: float) -> str:
    shown = [name.format(level=f"{level:g}".lstrip("0")) for name in head]
    lines = [f"| {' | '.join(shown)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _without_places(node: Any) -> Any:
    """Return a configuration or record in which a path is its last name."""
    if isinstance(node, dict):
        return {key: _without_places(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_places(value) for value in node]
    return Path(node).name if isinstance(node, str) and node.startswith(("/", "~")) else node


if __name__ == "__main__":
    main(sys.argv[1:])
