"""Do the tests notice a changed formula? One small change of the code at a time, and the tests of its room.

Usage:
    python -m benchmarks.mutation [ROOM ...]     rooms: losses fisher inits metrics judge; all of them

MUTANTS=80 draws so many, with SEED=0; without it each is tried (hours). A mutant is killed where a test
fails, or does not end within LIMIT seconds. Exit code 1 where fewer than 80 % are.
"""

import ast
import copy
import gc
import importlib.machinery
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "loku_exp", ROOT / "tests"
SUITES = [PACKAGE / "evaluation" / name for name in ("tofu", "tdec")]
ROOMS: dict[str, tuple[list[Path], list[str]]] = {
    **{n: (sorted((PACKAGE / n).glob("*.py")), [f"tests/{n}"]) for n in ("losses", "fisher", "inits")},
    **{
        n: ([s / f"{n}.py" for s in SUITES], [f"tests/evaluation/{s.name}/test_{n}.py" for s in SUITES])
        for n in ("metrics", "judge")
    },
}  # fmt: skip
LIMIT = 240
DEMANDED = 0.8
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class Mutant(NamedTuple):
    """A changed file.

    Attributes:
        room: whose tests are to notice.
        file: which file.
        line: where.
        change: what it was and what it is.
        tree: the changed code.
    """

    room: str
    file: Path
    line: int
    change: str
    tree: ast.Module


def mutants_of(room: str, file: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file; messages, annotations and strings stay."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for index, node in enumerate(_formulas(tree)):
        changed = copy.deepcopy(tree)
        target: Any = list(_formulas(changed))[index]
        before = ast.unparse(node)
        if isinstance(target, ast.Compare):
            target.ops[0] = SWAPS[type(target.ops[0])]()
        elif isinstance(target, ast.BinOp | ast.BoolOp | ast.AugAssign):
            target.op = SWAPS[type(target.op)]()
        elif isinstance(target, ast.UnaryOp):
            target.op = ast.UAdd() if isinstance(target.op, ast.USub) else ast.Not()
            if isinstance(target.op, ast.Not):
                target.operand = ast.UnaryOp(ast.Not(), target.operand)
        else:
            target.value = not target.value if isinstance(target.value, bool) else target.value + 1
        yield Mutant(room, file, node.lineno, f"{before}  ->  {ast.unparse(target)}", changed)


def _formulas(node: ast.AST) -> Iterator[Any]:
    """Yield the nodes that a mutant changes, in order."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr | ast.Raise | ast.Assert):
            continue
        if (
            (isinstance(child, ast.Compare) and type(child.ops[0]) in SWAPS)
            or (
                isinstance(child, ast.BinOp | ast.BoolOp | ast.AugAssign)
                and type(child.op) in SWAPS
            )
            or (isinstance(child, ast.UnaryOp) and isinstance(child.op, ast.Not | ast.USub))
            or (isinstance(child, ast.Constant) and isinstance(child.value, bool | int | float))
        ):
            yield child
        if isinstance(child, ast.arg):
            continue
        if isinstance(child, ast.AnnAssign):
            yield from _formulas(ast.Expr(child.value)) if child.value else ()
            continue
        yield from _formulas(child)


def is_killed(mutant: Mutant) -> bool:
    """Return whether a test of its room fails, in a fork that imports the changed code."""
    child = os.fork()
    if child == 0:
        os._exit(_tested(mutant))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) != 0


def _tested(mutant: Mutant) -> int:
    import pytest

    signal.alarm(LIMIT)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    loader: Any = importlib.machinery.SourceFileLoader
    plain = loader.get_code

    def get_code(self: Any, name: str) -> Any:
        if Path(self.path) == mutant.file:
            return compile(ast.fix_missing_locations(mutant.tree), self.path, "exec")
        return plain(self, name)

    loader.get_code = get_code
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow"]
    return int(pytest.main([*options, *ROOMS[mutant.room][1]]))


def main(rooms: list[str]) -> int:
    """Try mutants; return the exit code."""
    import lm_eval.api.task, peft, scipy.stats, torch, transformers  # noqa: E401, F401, I001  # once for all forks

    torch.set_num_threads(1)
    gc.freeze()
    every = [
        m for room in rooms or ROOMS for file in ROOMS[room][0] for m in mutants_of(room, file)
    ]
    number, seed = int(os.environ.get("MUTANTS", len(every))), int(os.environ.get("SEED", "0"))
    chosen = random.Random(seed).sample(every, min(number, len(every)))
    survivors = []
    for count, mutant in enumerate(chosen, 1):
        killed = is_killed(mutant)
        place = f"{mutant.file.relative_to(ROOT)}:{mutant.line}"
        if not killed:
            survivors.append(mutant)
            print(f"survives ({count} of {len(chosen)}): {place}: {mutant.change}", flush=True)
    rate = 1 - len(survivors) / len(chosen)
    print(
        f"{len(chosen)} of {len(every)} mutants, seed {seed}: {rate:.0%} killed, {DEMANDED:.0%} demanded"
    )
    return int(rate < DEMANDED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
