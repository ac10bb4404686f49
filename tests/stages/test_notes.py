"""What stands under a run's table."""

from types import SimpleNamespace

import pytest

from loku_exp.stages.found import Found
from loku_exp.stages.notes import notes_under_table
from loku_exp.subject import Outcome, Report, Subject


@pytest.mark.parametrize(
    ("knobs", "advice"),
    [({"epsilon_mode": "absolute"}, True), ({"epsilon_mode": "relative"}, False), ({}, False)],
)
def test_a_way_out_of_a_large_epsilon_is_named_where_there_is_one(knobs, advice):
    """`fila_official` and the controls have no such knob: who followed the note got an error."""
    init = {"name": "fila", "share_of_weight_norm": 0.5, "epsilon_dominates": True} | knobs
    subject = Subject("unlearned", "pretrained", "u", load=None)
    inputs = SimpleNamespace(
        earlier=None, corpus=SimpleNamespace(described=[]), suite=SimpleNamespace(described=[])
    )
    protocol = {"rows": {}, "abilities": [], "reference": "none", "missing": {}}
    found = Found(outcome=Outcome(subject, Report(init=init)))
    (note,) = [n for n in notes_under_table(inputs, protocol, found, None) if "epsilon" in n]
    assert note.endswith("set alone; see init.epsilon_mode=relative" if advice else "set alone")
