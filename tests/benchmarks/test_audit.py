"""What pip-audit could not look up is no "no known vulnerabilities"."""

import json
import sys

import pytest

from benchmarks.audit import main, problems_of

CLEAN = {"name": "filelock", "version": "3.16.0", "vulns": []}
SKIPPED = {"name": "packaging", "skip_reason": "Dependency not found on PyPI"}
KNOWN = {
    "name": "jinja2",
    "version": "3.0.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1.6"]}, {"id": "PYSEC-2", "fix_versions": []}],
}


def found(*packages):
    return problems_of(json.dumps({"dependencies": packages, "fixes": []}), "said")


def test_all_looked_up_and_none_known_is_right():
    assert found(CLEAN, CLEAN) == []


def test_a_skipped_package_is_an_error_that_says_why():
    (line,) = found(CLEAN, SKIPPED)
    assert line.startswith("1 of 2 packages were skipped")
    assert "Dependency not found on PyPI" in line


def test_advisories_are_named_with_what_mends_them():
    assert found(KNOWN, CLEAN) == [
        "jinja2 3.0.0: PYSEC-1, mended in 3.1.6",
        "jinja2 3.0.0: PYSEC-2, mended in no version",
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", "Traceback"])
def test_no_result_is_an_error(text):
    (line,) = problems_of(text, "the service\ncannot be reached")
    assert line == "pip-audit gave no result: the service cannot be reached"


def test_no_package_is_an_error():
    assert found() == ["pip-audit looked at no package"]


@pytest.mark.parametrize(
    ("packages", "code", "if_reachable"),
    [
        ([CLEAN], 0, 0),
        ([SKIPPED], 1, 0),  # pip-audit itself ends with 0 where it skipped everything
        ([KNOWN], 1, 1),
        ([SKIPPED, CLEAN], 1, 1),
        ([SKIPPED, KNOWN], 1, 1),
        ([], 1, 1),
    ],
)
def test_exit_code_is_not_pip_audits_own(tmp_path, capsys, packages, code, if_reachable):
    program = tmp_path / "pip-audit"
    content = json.dumps({"dependencies": packages})
    program.write_text(f"#!{sys.executable}\nprint('''{content}''')\n")
    program.chmod(0o755)
    assert main([str(program), "constraints.txt"]) == code
    assert main(["--if-reachable", str(program)]) == if_reachable
    if if_reachable < code:
        assert "nothing was audited: 1 of 1 packages were skipped" in capsys.readouterr().out
