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
    order = [forget.index(stream[k]["forget"][0][0]) for k in range(len(stream))]
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order[:5] != order[5:10]
    assert len(order) == 13


def test_stream_draws_retain_uniformly_with_replacement():
    retain = [sequence(i, 3) for i in range(4)]
    stream = Stream({"forget": [sequence(0, 3)], "retain": retain}, num_items=4000, seed=1)
    counts = Counter(retain.index(stream[k]["retain"][0][0]) for k in range(4000))
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


@pytest.mark.parametrize(("num_forget", "drawn"), [(1, 6), (4, 6), (6, 6), (12, 6)])
def test_an_update_takes_all_of_the_forget_set_and_its_share_of_retain_examples(num_forget, drawn):
    forget = [sequence(i, 3 + i % 4) for i in range(num_forget)]
    retain = [sequence(100 + i, 3 + i % 3) for i in range(5)]
    rows = {"forget": forget, "retain": retain}
    stream = Stream(rows, 3 * num_forget, 0, items_per_update=num_forget, drawn_per_update=drawn)
    for update in range(3):
        items = [stream[update * num_forget + k] for k in range(num_forget)]
        assert sorted(forget.index(item["forget"][0][0]) for item in items) == list(
            range(num_forget)
        )
        taken = [text for item in items for text in item["retain"][0]]
        assert len(taken) == drawn
        sizes = [len(item["retain"][0]) for item in items]
        assert max(sizes) - min(sizes) <= 1
        labels = sum(text.num_labels for text in taken)
        assert sum(item["retain"][1] for item in items) == pytest.approx(labels)


def test_retain_mean_of_an_update_does_not_depend_on_the_split():
    """Any micro-batch size gives the token mean over the retain examples of the update."""
    rows = {
        "forget": [sequence(i, 4) for i in range(6)],
        "retain": [sequence(10 * i, 3 + i) for i in range(8)],
    }
    stream = Stream(rows, 6, 1, items_per_update=6, drawn_per_update=9)
    means = set()
    for size in (1, 2, 3, 6):
        total = 0.0
        for start in range(0, 6, size):
            batch = collate([stream[k] for k in range(start, start + size)])["retain"]
            labels = batch["labels"][:, 1:]
            total += float(labels[labels != IGNORED].sum() / batch["denominator"]) / (6 // size)
        means.add(round(total, 4))
    assert len(means) == 1
