"""Changed formulas: one operator, comparison or number of a file at a time."""

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
