"""Padding and the paired stream."""

from collections import Counter

import pytest
import torch

from loku_exp.data.batches import Stream, collate, pad
from loku_exp.data.records import IGNORED, Sequence


def sequence(first: int, length: int, num_prompt: int = 1) -> Sequence:
    ids = tuple(range(first, first + length))
    return Sequence(ids, (IGNORED,) * num_prompt + ids[num_prompt:])


def test_pad_masks_by_length_even_where_the_pad_id_is_a_real_token():
    batch = pad([Sequence((0, 0, 5), (IGNORED, 0, 5)), Sequence((3, 4), (IGNORED, 4))])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 0, 5], [IGNORED, 4, IGNORED]]
    assert batch["denominator"].item() == 3


def test_stream_is_shuffled_epochs_without_a_short_batch():
    forget = [sequence(i, 3) for i in range(5)]
    stream = Stream({"forget": forget}, num_items=13, seed=0)
    order = [forget.index(stream[k]["forget"][0]) for k in range(len(stream))]
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order[:5] != order[5:10]
    assert len(order) == 13


def test_stream_draws_retain_uniformly_with_replacement():
    retain = [sequence(i, 3) for i in range(4)]
    stream = Stream({"forget": [sequence(0, 3)], "retain": retain}, num_items=4000, seed=1)
    counts = Counter(retain.index(stream[k]["retain"][0]) for k in range(4000))
    assert all(abs(count - 1000) < 120 for count in counts.values())


def test_stream_depends_on_its_seed_only():
    rows = {
        "forget": [sequence(i, 3) for i in range(9)],
        "retain": [sequence(i, 4) for i in range(7)],
    }
    torch.manual_seed(5)
    one = Stream(rows, 20, seed=3).order
    torch.manual_seed(6)
    assert one == Stream(rows, 20, seed=3).order
    assert one != Stream(rows, 20, seed=4).order


@pytest.mark.parametrize("items_per_update", [None, 4])
def test_denominators_give_the_mean_they_promise(items_per_update):
    """Micro-batch means (official) or the token mean of the whole update."""
    rows = [sequence(0, length) for length in (3, 9, 5, 4)]
    stream = Stream({"forget": rows}, num_items=4, seed=0, items_per_update=items_per_update)
    micro_batches = [collate([stream[0], stream[1]]), collate([stream[2], stream[3]])]
    values = [batch["forget"]["labels"][:, 1:] for batch in micro_batches]
    sums = [value[value != IGNORED].float().sum() for value in values]  # any per-token term
    counts = [int((value != IGNORED).sum()) for value in values]
    means = [
        s / batch["forget"]["denominator"] for s, batch in zip(sums, micro_batches, strict=True)
    ]
    of_update = sum(means) / 2  # the Trainer averages over micro-batches
    if items_per_update is None:
        expected = (sums[0] / counts[0] + sums[1] / counts[1]) / 2
    else:
        expected = (sums[0] + sums[1]) / sum(counts)
    assert of_update == pytest.approx(expected.item())
