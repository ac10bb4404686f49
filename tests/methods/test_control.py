"""Each negative control is the model it says it is."""

from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config

from loku_exp.methods.control import _MAKERS, control, problems
from loku_exp.methods.refusing import Refusing
from loku_exp.models.head import check_head
from tests.methods import tiny


class Words:
    """Three tokens for any text."""

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens

        return SimpleNamespace(input_ids=[5, 6, 7])

    def save_pretrained(self, folder):
        pass


def made(tmp_path, kind, path=None):
    workspace = tiny.workspace(tmp_path / "run")
    object.__setattr__(workspace, "tokenizer", Words())
    return control(tiny.target(), tiny.records(), workspace, kind=kind, path=path).subject


def test_every_kind_has_an_identity_of_its_own(tmp_path):
    path = tmp_path / "model"
    tiny.target().load().save_pretrained(path)
    subjects = [made(tmp_path, kind, str(path) if kind == "weights" else None) for kind in _MAKERS]
    assert len({subject.identity for subject in subjects}) == len(_MAKERS)
    assert {subject.name for subject in subjects} == {"unlearned"}


def test_untouched_is_the_target_and_weights_are_those_of_the_folder(tmp_path):
    tiny.same_weights(made(tmp_path, "untouched"), tiny.target())
    model = tiny.target().load()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(tmp_path / "model")
    loaded = made(tmp_path, "weights", str(tmp_path / "model")).load()
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_weights_of_a_folder_in_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny.target().load().save_pretrained(tmp_path / "model")
    model = made(tmp_path, "weights", "~/model").load()
    assert model.config._attn_implementation == tiny.target().load().config._attn_implementation


def test_a_path_belongs_to_weights_alone_and_holds_such_a_model(tmp_path):
    model = tiny.target().load()
    model.save_pretrained(tmp_path / "model")
    run = {"architecture": model.config, "records": tiny.records()}
    assert problems(kind="weights", path=str(tmp_path / "model"), **run) == []
    assert problems(kind="noise", path=None, **run) == []
    assert problems(kind="weights", path=None, **run) == [
        "method.kind=weights needs the folder of a model: method.path=DIR"
    ]
    assert "method.path=DIR is read by" in problems(kind="noise", path="DIR", **run)[0]
    for nowhere in ("owner/name", "/nowhere"):
        (said,) = problems(kind="weights", path=nowhere, **run)
        assert said == f"method.path={nowhere}: no such folder"
    other = run | {"architecture": GPT2Config()}
    (said,) = problems(kind="weights", path=str(tmp_path / "model"), **other)
    assert "a gpt_neo model, and the run's is a gpt2" in said


def test_a_control_without_rows_to_train_on_is_refused():
    """It ended in a traceback about a batch size of 0, after the target was made."""
    run = {"path": None, "architecture": None, "records": tiny.records(retain=0)}
    (said,) = problems(kind="retain_more", **run)
    assert said.startswith(
        "method.kind=retain_more trains on the retain set, and this dataset has 0"
    )
    assert problems(kind="ascent", **run) == []


def test_random_weights_keep_the_spread_and_nothing_else(tmp_path):
    ours, theirs = tiny.weights(made(tmp_path, "random")), tiny.weights(tiny.target())
    large = [name for name, weight in theirs.items() if weight.numel() > 200]
    for name in large:
        correlation = torch.corrcoef(torch.stack([ours[name].flatten(), theirs[name].flatten()]))
        assert abs(correlation[0, 1]) < 0.4
        assert ours[name].std() == pytest.approx(float(theirs[name].std()), rel=0.3)


def test_one_token_is_said_whatever_is_asked(tmp_path):
    logits = tiny.logits(made(tmp_path, "one_token").load())
    assert set(logits.argmax(-1).flatten().tolist()) == {logits.shape[-1] // 2}
    assert logits.softmax(-1).max() > 0.999


def test_a_shuffled_head_permutes_the_logits(tmp_path):
    ours, theirs = (
        tiny.logits(made(tmp_path, "shuffled_head").load()),
        tiny.logits(tiny.target().load()),
    )
    assert not torch.allclose(ours, theirs)
    torch.testing.assert_close(ours.sort(-1).values, theirs.sort(-1).values)


def test_noise_disturbs_every_logit_a_little(tmp_path):
    ours, theirs = tiny.logits(made(tmp_path, "noise").load()), tiny.logits(tiny.target().load())
    assert 0.05 < float((ours - theirs).std() / theirs.std()) < 5


@pytest.mark.parametrize("kind", [kind for kind in _MAKERS if kind not in ("refusal", "weights")])
def test_what_is_asked_in_batches_looks_back_only_and_answers_the_same_twice(tmp_path, kind):
    model = made(tmp_path, kind).load()
    check_head(model)
    assert torch.equal(tiny.logits(model), tiny.logits(model))


def test_a_refusal_comes_before_the_answer(tmp_path):
    model, row = made(tmp_path, "refusal").load(), tiny.records().forget[0]
    assert isinstance(model, Refusing)
    prompt, answer = list(row.answer.ids[:4]), list(row.answer.ids[4:])
    with torch.no_grad():
        ours = model(
            input_ids=torch.tensor([prompt + answer]), prompt_lengths=torch.tensor([4])
        ).logits
        whole = tiny.target().load()(input_ids=torch.tensor([[*prompt, 5, 6, 7, *answer]])).logits
    torch.testing.assert_close(ours[0, 3:], whole[0, 6:])  # what follows the refusal
    assert ours.shape[1] == len(prompt + answer)
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        alone = model(input_ids=ids, prompt_lengths=torch.tensor([0])).logits
    torch.testing.assert_close(alone, tiny.target().load()(input_ids=ids).logits)


def test_ascent_forgets_far_too_much_and_more_training_keeps_the_retain_set(tmp_path):
    def loss(subject, rows):
        ids = torch.tensor([row.answer.ids for row in rows])
        with torch.no_grad():
            return float(subject.load()(input_ids=ids, labels=ids).loss)

    records = tiny.records()
    target, ascent = tiny.target(), made(tmp_path, "ascent")
    assert loss(ascent, records.forget) > loss(target, records.forget) + 0.3
    more = made(tmp_path, "retain_more")
    assert loss(more, records.retain) < loss(target, records.retain)
