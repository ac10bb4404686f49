"""Functions of a user's own: what they return is looked at, what they raise is named."""

import pytest

from loku_exp.errors import UserError
from loku_exp.evaluation.suite import Suite
from loku_exp.runtime.chosen import check_returned, imported


def test_what_is_not_of_its_kind_is_named_with_what_must_be_returned():
    with pytest.raises(UserError, match=r"^mine\.f returned None; it must return Suite, see "):
        check_returned("mine.f", None, Suite)
    check_returned("mine.f", [1], list)


def test_a_module_that_ends_the_program_is_named(tmp_path, monkeypatch):
    (tmp_path / "ends_at_once.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"'ends_at_once' fails when it is imported \(SystemExit: 3\)"
    ):
        imported("ends_at_once")
