"""What stands under a run's table: every sign and row in it that is not plain."""

from types import SimpleNamespace

import pytest

from loku_exp.stages.found import Found
from loku_exp.stages.notes import GAINS, NO_CONTROL, notes_under_table
from loku_exp.subject import Outcome, Report, Subject

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


@pytest.mark.parametrize(
    ("knobs", "advice"),
    [({"epsilon_mode": "absolute"}, True), ({"epsilon_mode": "relative"}, False), ({}, False)],
)
def test_a_way_out_of_a_large_epsilon_is_named_where_there_is_one(knobs, advice):
    """`fila_official` and the controls have no such knob: who followed the note got an error."""
    init = {"name": "fila", "share_of_weight_norm": 0.5, "epsilon_dominates": True} | knobs
    subject = Subject("unlearned", "pretrained", "u", load=None)
    protocol = {"rows": {}, "abilities": [], "reference": "none", "missing": {}}
    found = Found(outcome=Outcome(subject, Report(init=init)))
    (note,) = [n for n in notes_under_table(INPUTS, protocol, found, None) if "epsilon" in n]
    assert note.endswith("set alone; see init.epsilon_mode=relative" if advice else "set alone")
