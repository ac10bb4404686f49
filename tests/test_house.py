"""Rules of the house: who may import whom, and what a command line costs before it is valid."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "loku_exp"
LOW = (
    "losses",
    "fisher",
    "fisher_sweep",
    "memory",
    "inits",
    "evaluation",
    "data",
    "adapters",
    "signatures",
    "seeds",
    "cache",
)
HEAVY = ("torch", "transformers", "peft", "wandb", "datasets", "lm_eval", "scipy", "matplotlib")


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_low_rooms_know_no_configuration(file):
    if room_of(file) in LOW:
        forbidden = (
            "hydra",
            "omegaconf",
            "wandb",
            "loku_exp.config.rules",
            "loku_exp.config.compose",
        )
        forbidden += ("loku_exp.config.schema",)
        assert not {name for name in imports_of(file) if name.startswith(forbidden)}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_nothing_imports_upward(file):
    above = {"loku_exp.__main__", "loku_exp.search.__main__"}
    if file.name != "startup.py":  # what the commands that run something share
        above |= {"loku_exp.run"}
    if room_of(file) not in ("__main__", "search"):
        above |= {"loku_exp.startup"}
    assert not imports_of(file) & above


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_trackers_are_known_to_the_command_line_alone(file):
    imports = imports_of(file)
    if room_of(file) not in ("tracking", "dashboard"):
        assert not {name for name in imports if name.split(".")[0] in ("wandb", "tensorboard")}
        if file.name != "startup.py":
            assert not {name for name in imports if name.startswith("loku_exp.tracking")}


def test_what_is_run_as_a_program_logs_under_the_packages_name():
    """There `__name__` is ``__main__``, and the terminal shows this package's messages alone."""
    programs = [file for file in FILES if 'if __name__ == "__main__"' in file.read_text()]
    assert len(programs) > 4
    assert not [file for file in programs if "getLogger(__name__)" in file.read_text()]


def test_imports_of_the_package_form_no_circle():
    modules = {
        ".".join(["loku_exp", *file.relative_to(PACKAGE).with_suffix("").parts]): file
        for file in FILES
    }
    graph = {name: imports_of(file) & modules.keys() for name, file in modules.items()}
    done: set[str] = set()
    while remaining := [name for name in graph if name not in done]:
        ready = [name for name in remaining if graph[name] <= done]
        assert ready, f"these import each other: {remaining}"
        done |= set(ready)


def test_run_reads_top_to_bottom_in_few_lines():
    assert len((PACKAGE / "run.py").read_text().splitlines()) < 120


def test_nothing_heavy_is_imported_before_the_configuration_is_valid():
    code = (
        "import sys; from loku_exp.__main__ import checked; from loku_exp.errors import ConfigError\n"
        "try: checked(['lora.rnak=3', 'loss.retain_wieght=2', 'init=fila', 'model=phi'])\n"
        "except ConfigError as error: assert len(error.problems) == 2, error\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
