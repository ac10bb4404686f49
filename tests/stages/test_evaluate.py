"""Subjects are asked in the way that their numbers need, or refused."""

import importlib
from functools import partial
from types import SimpleNamespace

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.errors import ModelError
from loku_exp.evaluation.standard_scores import standard_scores
from loku_exp.methods.wrapper import Wrapper
from loku_exp.runtime.cache import digest
from loku_exp.stages.evaluate import _inference, answers_file
from loku_exp.subject import Subject
from tests.helpers import tiny_model


class Raised(Wrapper):
    """A model that prefers the token 7."""

    def forward(self, **options):
        output = self.wrapped(**options)
        output.logits[..., 7] += 5
        return output


def test_logits_that_a_wrapper_changes_unsaid_are_refused():
    """Its scores would be the wrapped model's: they are made from the head, apart from the model."""
    subject = Subject(
        "unlearned", "pretrained", "x", lambda dtype=None: Raised(tiny_model()).eval()
    )
    with pytest.raises(ModelError, match=r"unlearned: .*change their logits.*reads_prompts=True"):
        _inference(subject, None, None)


def test_answers_to_requests_of_ones_own_are_those_of_their_code(tmp_path, monkeypatch):
    """A changed answerer got the numbers of the one before it."""
    (tmp_path / "own_answers.py").write_text("def answer(*_):\n    return iter([{0: 1.0}])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    answer = importlib.import_module("own_answers").answer
    kept = SimpleNamespace(path=lambda kind, recipe: tmp_path / digest(recipe))
    machine = SimpleNamespace(device="cpu")
    workspace = SimpleNamespace(store=lambda of_run: kept, machine=machine)
    config = compose_config(["model=toy_neo"])

    def file(**requests):
        suite = SimpleNamespace(requests=requests)
        inputs = SimpleNamespace(suite=suite, tokenizer_digest="x", max_length=64)
        return answers_file(Subject("target", "pretrained", "x", None), config, inputs, workspace)

    before, plain = file(own=answer), file()
    assert file(own=partial(answer, 1)) == before != plain == file(known=standard_scores)
    (tmp_path / "own_answers.py").write_text("def answer(*_):\n    return iter([{0: 2.0}])\n")
    assert file(own=answer) != before
