"""What stands under a run's table: every sign and row in it that is not plain."""

from types import SimpleNamespace

import pytest

from loku_exp.stages.found import Found
from loku_exp.stages.notes import GAINS, NO_CONTROL, notes_under_table

INPUTS = SimpleNamespace(
    corpus=SimpleNamespace(described=[]), suite=SimpleNamespace(described=[]), earlier=None
)


def notes(subjects, reference):
    protocol = {"rows": {"forget": 3}, "abilities": [], "reference": reference, "missing": []}
    found = Found(subjects=dict.fromkeys(subjects), evaluations=dict.fromkeys(subjects))
    return notes_under_table(INPUTS, protocol, found, None)


@pytest.mark.parametrize("sign", ["=: ", "≈: "])
def test_every_sign_of_an_arrow_is_explained(sign):
    assert any(sign in note for note in notes(["target", "reference"], "train"))
    assert not any(sign in note for note in notes(["target"], "none"))


def test_rows_of_an_attack_are_explained_or_said_to_have_no_control():
    attacked = ["target", "unlearned", "target+int4", "unlearned+int4"]
    assert GAINS not in notes(["target", "reference"], "train")
    assert GAINS in notes([*attacked, "reference", "reference+int4"], "train")
    assert NO_CONTROL in notes(attacked, "none")
