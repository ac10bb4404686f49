"""Mutants change formulas alone, one at a time, and a killed one is told from one that survives."""

import ast

import pytest

from benchmarks import mutation
from benchmarks.mutation import Mutant, is_killed, mutants_of

CODE = '''
def mean(values: list[int], limit: int = 3) -> float:
    """Half of 2 is 1."""
    if not values or len(values) > limit:
        raise ValueError(f"{limit + 1} values")
    total: float = 0.0
    for value in values:
        total += -value
    return total / len(values)
'''


@pytest.fixture
def mutants(tmp_path):
    (tmp_path / "code.py").write_text(CODE)
    return list(mutants_of("losses", tmp_path / "code.py"))


def test_every_formula_has_its_mutant_and_messages_have_none(mutants):
    assert sorted(mutant.change for mutant in mutants) == [
        "-value  ->  +value",
        "0.0  ->  1.0",
        "3  ->  4",
        "len(values) > limit  ->  len(values) >= limit",
        "not values  ->  not not values",
        "not values or len(values) > limit  ->  not values and len(values) > limit",
        "total += -value  ->  total -= -value",
        "total / len(values)  ->  total * len(values)",
    ]


def test_a_mutant_differs_in_one_place(mutants):
    whole = ast.unparse(ast.parse(CODE)).splitlines()
    for mutant in mutants:
        lines = ast.unparse(mutant.tree).splitlines()
        assert sum(one != two for one, two in zip(whole, lines, strict=True)) == 1


@pytest.mark.parametrize(("code", "killed"), [("ANSWER = 41", True), ("ANSWER = 42", False)])
def test_it_is_killed_where_a_test_fails(tmp_path, monkeypatch, code, killed):
    """The tests import the changed code, whatever the file holds."""
    (tmp_path / "answering.py").write_text("ANSWER = 0\n")
    test = "import sys\nsys.path.insert(0, {!r})\nfrom answering import ANSWER\n"
    test += "\ndef test():\n    assert ANSWER == 42\n"
    (tmp_path / "test_answer.py").write_text(test.format(str(tmp_path)))
    monkeypatch.setitem(mutation.ROOMS, "own", ([], [str(tmp_path / "test_answer.py")]))
    mutant = Mutant("own", tmp_path / "answering.py", 1, "", ast.parse(code))
    assert is_killed(mutant) is killed


def test_every_room_has_code_and_tests():
    for files, tests in mutation.ROOMS.values():
        assert files
        assert all(file.is_file() for file in files)
        assert all((mutation.ROOT / place).exists() for place in tests)
