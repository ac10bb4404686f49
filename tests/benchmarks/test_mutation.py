"""Mutants change formulas alone, one at a time, and a killed one is told from one that survives."""

import ast
import signal
from contextlib import nullcontext

import pytest

from benchmarks import mutation
from benchmarks.mutants import Mutant, mutants_of
from benchmarks.mutation import in_order, trials

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


def test_so_many_are_drawn_or_all():
    every = list(mutants_of("judge", mutation.ROOMS["judge"][0][0]))
    few = mutation.drawn(every, "5", 0)
    assert len(few) == len({id(mutant) for mutant in few}) == 5
    assert few == mutation.drawn(every, "5", 0) != mutation.drawn(every, "5", 1)
    assert (
        len(mutation.drawn(every, "all", 0)) == len(every) == len(mutation.drawn(every, "9999", 0))
    )


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("ANSWER = 41", 1),
        ("ANSWER = 42", 0),
        pytest.param(
            "import time\ntime.sleep(60)\nANSWER = 42", -signal.SIGALRM, marks=pytest.mark.slow
        ),
    ],
)
def test_it_is_killed_where_a_test_fails_or_does_not_end(tmp_path, monkeypatch, code, end):
    """The tests import the changed code, whatever the file holds, and whoever took the alarm before."""
    own_room(tmp_path, monkeypatch)
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        limit = 5 if end < 0 else 120
        mutant = Mutant("own", tmp_path / "answering.py", 1, "", ast.parse(code))
        ((tried, found, seconds),) = trials([mutant], {"own": limit})
        assert (tried, found) == (mutant, end)
        assert seconds > 0
    finally:
        signal.signal(signal.SIGALRM, before)


def test_several_at_a_time_each_have_their_own_end(tmp_path, monkeypatch):
    own_room(tmp_path, monkeypatch)
    codes = ("ANSWER = 41", "ANSWER = 42", "ANSWER = 43", "ANSWER = 42")
    file = tmp_path / "answering.py"
    mutants = [Mutant("own", file, line, "", ast.parse(code)) for line, code in enumerate(codes)]
    found = {trial.mutant.line: trial.code for trial in trials(mutants, {"own": 120}, jobs=3)}
    assert found == {0: 1, 1: 0, 2: 1, 3: 0}


@pytest.mark.parametrize("answer", [41, 42])
def test_nothing_is_tried_where_the_plain_code_fails(tmp_path, monkeypatch, answer):
    own_room(tmp_path, monkeypatch)
    (tmp_path / "answering.py").write_text(f"ANSWER = {answer}\n")
    with pytest.raises(SystemExit, match="do not pass") if answer == 41 else nullcontext():
        assert mutation._plain_seconds(["own"])["own"] > 0


def own_room(tmp_path, monkeypatch):
    (tmp_path / "answering.py").write_text("ANSWER = 0\n")
    test = "import sys\nsys.path.insert(0, {!r})\nfrom answering import ANSWER\n"
    test += "\ndef test():\n    assert ANSWER == 42\n"
    (tmp_path / "test_answer.py").write_text(test.format(str(tmp_path)))
    room = ([tmp_path / "answering.py"], [str(tmp_path / "test_answer.py")])
    monkeypatch.setitem(mutation.ROOMS, "own", room)


def test_all_tests_of_a_room_are_tried_those_of_the_changed_file_first():
    tests = in_order("fisher", mutation.PACKAGE / "fisher" / "variance.py")
    assert tests[0].name == "test_variance.py"
    beside = mutation.TESTS / "models" / "test_calls.py"
    assert sorted(tests) == sorted([*(mutation.TESTS / "fisher").glob("test_*.py"), beside])
    (first, *_) = in_order("inits", mutation.PACKAGE / "inits" / "vila.py")
    assert first.name == "test_spectral.py"  # has no file of its own, is tried there
    assert in_order("judge", mutation.SUITES[1] / "judge.py")[0].parent.name == "tdec"


def test_every_room_has_code_and_tests():
    for files, tests in mutation.ROOMS.values():
        assert files
        assert all(file.is_file() for file in files)
        assert all((mutation.ROOT / place).exists() for place in tests)
