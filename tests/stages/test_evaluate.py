"""Subjects are asked in the way that their numbers need, or refused."""

import pytest

from loku_exp.errors import ModelError
from loku_exp.methods.wrapper import Wrapper
from loku_exp.stages.evaluate import _inference
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
