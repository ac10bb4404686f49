"""Corrupted prompts: what is flagged, what is changed, and that it is shipped and loaded as it was."""

import json
from dataclasses import replace

import pytest
import torch

from loku_exp.data.records import Records
from loku_exp.errors import TrainingError
from loku_exp.methods.prompt_corruption import load_corruption, problems, prompt_corruption
from tests.methods import tiny

KNOBS = {"strength": 3.0, "false_alarms": 0.01, "longest": 2}


@pytest.fixture
def outcome(tmp_path):
    return prompt_corruption(
        tiny.target(), tiny.records(), tiny.workspace(tmp_path / "run"), **KNOBS
    )


def logits(model, row, prompt=None):
    ids = torch.tensor([row.answer.ids])
    lengths = torch.tensor([len(row.prompt) if prompt is None else prompt])
    with torch.no_grad():
        return model(input_ids=ids, prompt_lengths=lengths).logits


def test_forget_prompts_are_flagged_retain_prompts_are_not(outcome):
    model, records = outcome.subject.load(), tiny.records()
    assert all(model.flags(row.prompt) for row in records.forget)
    assert not any(model.flags(row.prompt) for row in records.retain)
    assert outcome.report.protocol["corruption"]["forget_flagged"] == 1.0
    assert outcome.subject.reads_prompts
    assert outcome.report.trainable_parameters is None


def test_flagged_prompts_answer_otherwise_and_others_bit_for_bit_as_before(outcome):
    model, target, records = outcome.subject.load(), tiny.target().load(), tiny.records()
    for row in records.forget:
        plain = target(input_ids=torch.tensor([row.answer.ids])).logits
        assert (logits(model, row) - plain).abs().max() > 1e-2
        assert torch.equal(
            logits(model, row, prompt=0), plain
        )  # without a prompt nothing is changed
    for row in records.retain:
        plain = target(input_ids=torch.tensor([row.answer.ids])).logits
        assert torch.equal(logits(model, row), plain)


def test_the_noise_by_hand(outcome):
    """The embeddings of all prompt tokens but the last get strength times their spread in noise."""
    model, row = outcome.subject.load(), tiny.records().forget[0]
    embedding = model.wrapped.get_input_embeddings()
    by_hand = embedding(torch.tensor([row.answer.ids])).detach().clone()
    noise = model._noise(row.prompt, by_hand)
    by_hand[0, :3] += noise[:3] * 3.0 * embedding.weight.std()
    with torch.no_grad():
        expected = model.wrapped(inputs_embeds=by_hand).logits
    torch.testing.assert_close(logits(model, row), expected)


def test_it_is_written_once_and_loads_to_the_same_model(outcome, tmp_path):
    assert outcome.ship() == 0
    folder = tmp_path / "run/method"
    again = load_corruption(tiny.target().load(), folder)
    row = tiny.records().forget[1]
    assert torch.equal(logits(again, row), logits(outcome.subject.load(), row))
    stamp = (folder / "profile.safetensors").stat().st_mtime_ns
    same = prompt_corruption(
        tiny.target(), tiny.records(), tiny.workspace(tmp_path / "run"), **KNOBS
    )
    assert (folder / "profile.safetensors").stat().st_mtime_ns == stamp
    assert same.subject.identity == outcome.subject.identity


def test_what_does_not_reload_to_the_same_is_not_shipped(tmp_path):
    loads = []

    def load(dtype=None):
        model = tiny.target().load(dtype)
        loads.append(model)
        with torch.no_grad():
            model.lm_head.weight.mul_(len(loads))  # another model each time
        return model

    target = replace(tiny.target(), load=load)
    outcome = prompt_corruption(target, tiny.records(), tiny.workspace(tmp_path / "run"), **KNOBS)
    with pytest.raises(TrainingError, match="does not give the logits of the model in memory"):
        outcome.ship()


def test_settings_are_part_of_the_identity(tmp_path):
    found = set()
    for number, change in enumerate(({}, {"strength": 2.0}, {"longest": 1}, {"false_alarms": 0.4})):
        place = tiny.workspace(tmp_path / f"run {number}")
        outcome = prompt_corruption(tiny.target(), tiny.records(), place, **KNOBS | change)
        settings = json.loads((place.folder / "method/corruption.json").read_text())
        assert settings.items() >= (KNOBS | change).items()
        found.add(outcome.subject.identity)
    assert len(found) == 4


def test_without_retain_prompts_there_is_no_threshold():
    records = tiny.records()
    assert problems(records) == []
    (said,) = problems(Records([], [], records.forget, [], {}))
    assert "method=prompt_corruption sets its threshold on retain prompts" in said
