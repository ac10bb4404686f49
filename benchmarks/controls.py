"""Negative controls: models whose judgement is known, through the whole evaluation.

Usage:
    python -m benchmarks.controls            both toy suites; make controls
    python -m benchmarks.controls toy_tofu   one of them

Prints expected and found judgements; exit code 1 where one differs. Toy models, about two minutes each.
"""

import contextlib
import io
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.table import Table

from loku_exp.config.compose import compose_config
from loku_exp.evaluation.catalogue import Judgement
from loku_exp.results import files
from loku_exp.results.terminal import console
from loku_exp.run import run
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.logs import start_logging
from loku_exp.stages.bases import make_base
from loku_exp.stages.inputs import load_inputs
from loku_exp.stages.machine import machine_of, on_this_machine
from loku_exp.workspace import Workspace

EXPECTED = Path(__file__).with_suffix(".yaml")
SECOND_SEED = 1000  # of the second reference


def main(arguments: list[str]) -> int:
    """Run the controls of the suites named, or of all; return the exit code."""
    start_logging()
    logging.getLogger("loku_exp").setLevel(logging.WARNING)
    expected: dict[str, Any] = yaml.safe_load(EXPECTED.read_text(encoding="utf-8"))
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments or expected:
            found = judgements(name, list(expected[name]), Path(folder))
            wrong += show_controls(name, expected[name], found)
    return 1 if wrong else 0


def judgements(suite: str, controls: list[str], folder: Path) -> dict[str, Judgement]:
    """Return the judgement of each control.

    Args:
        suite: a toy dataset.
        controls: kinds of `loku_exp.methods.control`, and ``second_reference``.
        folder: for the runs.
    """
    found = {}
    for name in controls:
        print(f"{suite}: {name}", file=sys.stderr)
        kind = [f"method.kind={name}"]
        if name == "second_reference":
            kind = ["method.kind=weights", f"method.path={second_reference(suite)}"]
        config = compose_config(
            ["model=toy_neo", f"dataset={suite}", "method=control", *kind, f"output_dir={folder}"]
        )
        with contextlib.redirect_stdout(io.StringIO()):
            record = files.read(run(config))
        assert record.judgement is not None
        found[name] = record.judgement
    return found


def second_reference(suite: str) -> str:
    """Return the folder of a reference trained with another seed, made where it is not cached."""
    overrides = ["model=toy_neo", f"dataset={suite}", f"reference.seed={SECOND_SEED}"]
    config = on_this_machine(compose_config(overrides))
    cache = Cache(config.cache_dir)
    with tempfile.TemporaryDirectory() as folder:
        inputs = load_inputs(config, cache)
        workspace = Workspace(Path(folder), cache, 0, machine_of(config), inputs.tokenizer)
        return str(make_base("reference", config, inputs, workspace).path)


def show_controls(
    suite: str, expected: dict[str, dict[str, Any]], found: dict[str, Judgement]
) -> int:
    """Print a table of expected and found judgements; return how many differ."""
    table = Table(title=f"Negative controls, {suite} (TOY)", title_justify="left", box=box.SIMPLE)
    for name in ("control", "expected", "found", "as expected"):
        table.add_column(name)
    wrong = 0
    for name, wanted in expected.items():
        got = {"success": found[name].success, "collapsed": found[name].collapsed}
        right = got == wanted
        wrong += not right
        table.add_row(name, _words(wanted), _words(got), "yes" if right else "NO")
    place = console()
    place.print(table)
    for name, judgement in found.items():
        place.print(f"{name}: {judgement.sentence}", soft_wrap=True)
    return wrong


def _words(judgement: dict[str, Any]) -> str:
    success = {True: "forgotten", False: "not forgotten", None: "no judgement"}
    return success[judgement["success"]] + (", collapsed" if judgement["collapsed"] else "")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
