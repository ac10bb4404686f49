"""Rules of the house: who may import whom, names, sizes, and the cost of a command line."""

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "loku_exp"
# From the cellar to the roof: a room may import what stands in a line above its own, and itself.
FLOORS = (
    ("errors",),
    ("runtime",),
    ("config", "data"),
    ("workspace",),
    ("inits",),
    ("models", "subject"),
    ("losses",),
    ("training", "fisher", "evaluation"),
    ("methods", "results"),
    ("attacks",),
    ("stages", "report", "tracking", "export", "score_log", "from_gguf", "cache"),
    ("claims", "doctor"),
    ("run",),
    ("startup",),
    ("sweeps", "attack", "notebook", "lm_eval"),
    ("search",),
    ("__main__",),
    ("__init__",),
)
NO_CONFIG = (
    "losses",
    "fisher",
    "inits",
    "methods",
    "attacks",
    "evaluation",
    "training",
    "models",
    "data",
)
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "wandb",
    "datasets",
    "lm_eval",
    "scipy",
    "matplotlib",
    "pandas",
)
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(file: Path) -> set[str]:
    names = {name.split(".")[1] for name in imports_of(file) if name.startswith("loku_exp.")}
    return names - {"__version__"}


def test_imports_go_down():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    upward = {
        (name_of(file), room)
        for file in FILES
        for room in rooms_imported(file) - {room_of(file)}
        if floor[room] >= floor[room_of(file)]
    }
    assert not upward, "these stand below what they import"


def test_rooms_below_know_no_configuration():
    forbidden = ("hydra", "omegaconf", "wandb", "loku_exp.config")
    below = [file for file in FILES if room_of(file) in NO_CONFIG]
    assert {room_of(file) for file in below} == set(NO_CONFIG)
    assert not {
        (name_of(file), name)
        for file in below
        for name in imports_of(file)
        if name.startswith(forbidden)
    }


def test_what_a_report_is_made_of_knows_no_training():
    """Reports, trackers and exports read records: results, the words of a suite, and the cellar."""
    for room in ("report", "tracking", "export"):
        for file in FILES:
            if room_of(file) == room:
                others = rooms_imported(file) - {room, "results", "runtime", "errors", "evaluation"}
                assert not others, file
                words = {
                    name for name in imports_of(file) if name.startswith("loku_exp.evaluation.")
                }
                assert all(name.startswith("loku_exp.evaluation.catalogue") for name in words), file


def test_trackers_are_known_to_the_command_line_alone():
    known = {
        name_of(file)
        for file in FILES
        for name in imports_of(file)
        if room_of(file) != "tracking"
        and name.startswith(("wandb", "trackio", "tensorboard", "loku_exp.tracking"))
    }
    assert known == {"startup.py"}


def test_the_root_holds_entry_points_and_the_words_of_the_house():
    files = {file.name for file in PACKAGE.glob("*.py")}
    assert len(files) <= 12
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert {*files, *folders} == {
        f"{room}.py" if f"{room}.py" in files else room for rooms in FLOORS for room in rooms
    }


def test_no_two_public_names_are_alike():
    where = defaultdict(set)
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                where[node.name].add(name_of(file))
    # what every program, and every component that can be wrong, offers under one name
    offered = ("main", "problems", "flops")
    alike = {name: files for name, files in where.items() if len(files) > 1 and name not in offered}
    assert not alike


def test_files_and_functions_stay_short():
    assert not {name_of(file) for file in FILES if file.read_text().count("\n") > 270}
    functions = [
        (name_of(file), node)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert not {
        (file, node.name): lines
        for file, node in functions
        if (lines := (node.end_lineno or 0) - node.lineno + 1 - described(node)) > 50
    }


def described(node: ast.FunctionDef) -> int:
    """Return how many lines of a function are not counted: `run`'s docstring says what a run is."""
    docstring = ast.get_docstring(node, clean=False) if node.name == "run" else None
    return len((docstring or "").splitlines())


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


def test_tests_mirror_the_package():
    """A room has its tests in a folder of its name; what tests share lies in tests/helpers.py."""
    tests = Path(__file__).parent
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert not {room for room in rooms if not list((tests / room).rglob("test_*.py"))}


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
