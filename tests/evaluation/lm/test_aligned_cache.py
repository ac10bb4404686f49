"""Whether a cache fits: exactly in float32; in half precision at most of the last places."""

import pytest
import torch

from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm import aligned_cache
from loku_exp.evaluation.lm.aligned_cache import aligns
from loku_exp.evaluation.lm.wavefront import read_with_cache
from tests.helpers import random_sequence, tiny_model

TEXTS = [random_sequence(n, 0, 61, n).ids for n in (12, 9)]


@torch.no_grad()
def read(dtype):
    model = tiny_model(dtype=dtype)
    batch = pad([Sequence(ids, ids) for ids in TEXTS])
    return model, batch, *read_with_cache(model, batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_cache_of_the_same_texts_fits_and_one_of_others_does_not(dtype):
    model, batch, hidden, layers = read(dtype)
    assert aligns(model, batch, layers, hidden)
    shifted = [(keys.roll(1, dims=2), values.roll(1, dims=2)) for keys, values in layers]
    assert not aligns(model, batch, shifted, hidden)


@pytest.mark.parametrize(
    ("dtype", "off", "fits"),
    [
        (torch.bfloat16, [0.06, 0, 0, 0, 0], True),  # by chance
        (torch.bfloat16, [0.06, 0.06, 0, 0.06, 0], False),
        (torch.float32, [0.002], False),
    ],
)
def test_one_place_of_many_may_be_off_in_half_precision(dtype, off, fits, monkeypatch):
    shares = iter([torch.tensor([share, 0.0]) for share in off])
    monkeypatch.setattr(aligned_cache, "_difference", lambda *_: next(shares))
    assert aligns(*read(dtype)[:2], [], read(dtype)[2]) is fits


@torch.no_grad()
def test_a_text_of_one_token_has_one_place():
    model = tiny_model(dtype=torch.bfloat16)
    batch = pad([Sequence((5, 6), (5, 6))])
    batch = batch | {"attention_mask": torch.tensor([[1, 0]])}
    hidden, layers = read_with_cache(model, batch)
    assert aligns(model, batch, layers, hidden)
