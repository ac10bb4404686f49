"""The fuzzer runs what it says for as long as it says, and a failing property ends it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import fuzz


@given(st.integers())
def holds(number):
    assert number + 1 > number


@pytest.mark.parametrize(
    ("limit", "value", "arguments", "said"),
    [
        ("FUZZ_SECONDS", "0.3", ["7"], "1 properties, at most 0 s, seeds 7 to 1006"),
        ("FUZZ_ROUNDS", "3", [], "holds: 3 rounds"),
    ],
)
def test_time_or_rounds_end_it(limit, value, arguments, said, monkeypatch, capsys):
    monkeypatch.setenv(limit, value)
    monkeypatch.setattr(fuzz, "property_tests", lambda: {"holds": holds})
    monkeypatch.setattr(fuzz, "use_profile", lambda: None)
    assert fuzz.main(arguments) == 0
    printed = capsys.readouterr().out
    assert said in printed
    assert "holds: 0 rounds" not in printed


def test_a_property_that_fails_is_named_with_its_seed(monkeypatch, capsys):
    @given(st.integers())
    def fails(number):
        assert number < 5

    monkeypatch.setenv("FUZZ_SECONDS", "60")
    monkeypatch.setattr(fuzz, "property_tests", lambda: {"fails": fails})
    monkeypatch.setattr(fuzz, "use_profile", lambda: None)
    assert fuzz.main(["3"]) == 1
    assert "fails fails with seed 3" in capsys.readouterr().out


def test_readers_yaml_and_command_lines_are_among_them():
    names = set(fuzz.property_tests())
    assert {
        "test_text_files_properties.test_json_lines",
        "test_yaml_properties.test_it_composes_or_is_refused_in_lines",
        "test_overrides_properties.test_it_composes_or_is_refused_in_lines",
    } <= names
