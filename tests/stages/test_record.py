"""How a record is filled."""

from types import SimpleNamespace

import pytest
import torch

from loku_exp.evaluation.suite import Evaluation
from loku_exp.evaluation.tasks import ChoiceTask, Mean, Option, Question, as_text
from loku_exp.results.schema import CurvePoint
from loku_exp.stages import record
from loku_exp.stages.found import Found
from loku_exp.subject import Outcome, Subject


def test_rows_of_abilities_are_not_left_out_one_by_one(monkeypatch):
    """Each of thousands made all aggregates anew, which took hours, and no metric hangs on them."""
    task = ChoiceTask("copa_local", [Question(0, (Option("a", " b"), Option("a", " c")))], as_text)
    rows = [{"set": name, "row": row} for name in ("forget", "copa_local") for row in range(6)]
    found = {name: Evaluation({}, {}, rows) for name in ("target", "reference")}
    asked = []
    monkeypatch.setattr(record, "half_widths", lambda ours, *_: asked.extend(ours) or {})
    group = Mean("reasoning_local", [task], "acc", ["copa_local"])
    inputs = SimpleNamespace(suite=SimpleNamespace(catalogue=[]), abilities=[group])
    subject = Subject("target", "pretrained", "t", load=None, reference="reference")
    record._model(subject, found, None, inputs)
    assert {row["set"] for row in asked} == {"forget"}


def test_memory_is_that_of_the_device_a_run_was_on(monkeypatch):
    """A run on the CPU of a machine with an accelerator took none of its memory."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    of_device = {None: 0, torch.device("cuda:1"): 7}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: of_device[device])
    peak = [
        record._cost(Found(), {}, torch.device(name))["peak_memory_bytes"]
        for name in ("cpu", "cuda:1")
    ]
    assert peak[0] > 2**20
    assert peak[1] == 7


@pytest.mark.parametrize(
    ("epochs", "known"),
    [
        ([0, 1, 2], 1),
        ([0, 2, 4], None),  # training.snapshot_epochs=2
        ([0, 7], None),  # evaluation.curve=none: only the target was measured
        ([0, 59 / 12, 60 / 12, 62 / 12], None),  # the end is amid an epoch
        ([0, 0], None),  # nothing was trained
        ([0, 1 / 3, 4 / 3], 1 / 3),
    ],
)
def test_one_epoch_before_the_end_is_one_epoch(epochs, known):
    """Whatever was measured last stood under these words, the target itself among it."""
    facts = []

    def judge(model, target, reference, said):
        facts.append(said)

    def subject(name, of_run=False):
        return Subject(name, "pretrained", name, load=None, of_run=of_run)

    nothing = Evaluation({}, {}, [])
    found = Found(
        outcome=Outcome(subject("unlearned", of_run=True)),
        subjects={"target": subject("target"), "unlearned": subject("unlearned", of_run=True)},
        evaluations={"target": nothing, "unlearned": nothing},
        curve=[
            CurvePoint(model="unlearned", step=0, epoch=epoch, metrics={"epoch": epoch}, halves=[])
            for epoch in epochs
        ],
    )
    record._judgements(SimpleNamespace(suite=SimpleNamespace(judge=judge)), found)
    assert facts[0].before == (None if known is None else {"epoch": known})
