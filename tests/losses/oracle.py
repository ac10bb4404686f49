"""Losses beside a loop over tokens: whole logits, one position at a time, the target a model of its own."""

from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import nn

from loku_exp.data.batches import pad
from loku_exp.data.records import IGNORED, Sequence
from loku_exp.losses.scores import Scores
from loku_exp.methods.adapter import target_function
from tests.helpers import random_sequence, tiny_model

BATCHES = {
    name: pad([random_sequence(length, prompt, 61, seed) for length, prompt, seed in rows])
    for name, rows in {
        "forget": [(9, 3, 0), (5, 0, 1), (7, 5, 2)],
        "idk": [(6, 3, 5), (4, 0, 6), (8, 5, 7)],
        "retain": [(6, 2, 3), (11, 4, 4)],
    }.items()
}
# the same texts in a wider batch, with other ids where nothing is
PADDED = {
    name: batch
    | {
        "labels": nn.functional.pad(batch["labels"], (0, 5), value=IGNORED),
        "input_ids": nn.functional.pad(batch["input_ids"], (0, 5), value=7),
        "attention_mask": nn.functional.pad(batch["attention_mask"], (0, 5)),
    }
    for name, batch in BATCHES.items()
}


def tokens(model, name):
    """By row, what the model says before each labelled token, (V,), and the token."""
    batch = BATCHES[name]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return [
        [(logits[row, t - 1], labels[t]) for t in range(1, len(labels)) if labels[t] != IGNORED]
        for row, labels in enumerate(batch["labels"].tolist())
    ]


def nll(logits, label):
    return -logits.softmax(-1)[label].log()


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def flat(rows):
    return [token for row in rows for token in row]


def ce(model, name="retain"):
    return mean(nll(*token) for token in flat(tokens(model, name)))


def kl(model, target, name="retain"):
    """KL(target || model), summed token by token of the vocabulary."""
    pairs = zip(flat(tokens(model, name)), flat(tokens(target, name)), strict=True)
    return mean(
        sum(q.detach() * (q.detach().log() - p.log()) for p, q in zip(*both, strict=True))
        for both in ((z.softmax(-1), z_target.softmax(-1)) for (z, _), (z_target, _) in pairs)
    )


def moved(frozen_head):
    """A model that has moved away from the tiny one, and the context in which it is that one."""
    model = tiny_model()
    model.get_output_embeddings().weight.requires_grad_(not frozen_head)
    as_target = target_function(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, as_target


def check(loss, slow, batches=("forget", "retain"), reaches_all=True, **knobs):
    """A loss and its gradients equal the slow ones, by whole logits, in chunks, and with more padding."""
    for frozen_head in (True, False):
        model, as_target = moved(frozen_head)
        expected, slopes = _with_gradients(model, lambda model=model: slow(model, tiny_model()))
        for options in ({"plain": True}, {"chunk_rows": 2}, {}):
            for texts in (BATCHES, PADDED):
                scores = {
                    n: Scores(model, texts[n], as_target=as_target, **options) for n in batches
                }
                terms = loss(**scores, **knobs)
                value, gradients = _with_gradients(model, lambda terms=terms: terms.total)
                torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
                assert gradients.keys() == slopes.keys()
                for name, gradient in gradients.items():
                    torch.testing.assert_close(gradient, slopes[name], rtol=1e-3, atol=1e-6)
        blocks = [g for n, g in gradients.items() if ".h." in n and "weight" in n]
        assert all(gradient.any() for gradient in blocks) or not reaches_all
        assert any(gradient.any() for gradient in blocks)
        assert terms.reaches_all == reaches_all


def _with_gradients(model, value):
    model.zero_grad()
    found = value()
    found.backward()
    return found.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


class Says(nn.Module):
    """Gives known logits (B, T, V), whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, **_):
        return SimpleNamespace(logits=self.logits)


def said(logits, labels, target=None):
    """Scores of one row by known logits (n, V), one a label; the target may say other ones."""
    model = Says(torch.tensor([[*logits, logits[-1]]]).float())
    at_target = model.logits if target is None else torch.tensor([[*target, target[-1]]]).float()

    @contextmanager
    def as_target():
        own, model.logits.data = model.logits.data, at_target.data
        try:
            with torch.no_grad():
                yield
        finally:
            model.logits.data = own

    batch = pad([Sequence((0, *labels), (IGNORED, *labels))])
    return Scores(model, batch, plain=True, as_target=as_target)


def of_probabilities(*values):
    """Logits (n, 2) that give label 0 these probabilities."""
    return [[torch.tensor(p).logit().item(), 0.0] for p in values]
