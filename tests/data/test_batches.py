"""Padding and the paired stream."""

from collections import Counter

import pytest
import torch

from loku_exp.data.batches import Bucket, Stream, collate, pad
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


def bucketed(bucket: Bucket | None, drawn: int | None = None, num_items: int = 48, size: int = 8):
    rows = {
        "forget": [sequence(100 * i, 3 + 7 * i % 23) for i in range(16)],
        "retain": [sequence(100 * i, 4 + 5 * i % 19) for i in range(30)],
    }
    per_update = size if drawn else None
    return Stream(rows, num_items, 3, per_update, drawn, bucket)


def window_of(stream: Stream, name: str, start: int, stop: int) -> list[int]:
    return [row for item in stream.order[name][start:stop] for row in item]


def padded_tokens(stream: Stream, micro: int) -> int:
    batches = [collate([stream[k + j] for j in range(micro)]) for k in range(0, len(stream), micro)]
    return sum(batch[name]["input_ids"].numel() for batch in batches for name in batch)


@pytest.mark.parametrize(
    "updates", [1, 2, 4]
)  # the last window is short where 6 updates are not 4 + 4
@pytest.mark.parametrize("drawn", [None, 13])
def test_bucketing_keeps_the_examples_of_every_window(updates, drawn):
    plain, sorted_ = bucketed(None, drawn), bucketed(Bucket(updates, 8, 2), drawn)
    for name in plain.order:
        assert [len(i) for i in sorted_.order[name]] == [len(i) for i in plain.order[name]]
        for start in range(0, 48, 8 * updates):
            window = (name, start, start + 8 * updates)
            assert Counter(window_of(sorted_, *window)) == Counter(window_of(plain, *window))
    assert padded_tokens(sorted_, 2) < 0.95 * padded_tokens(plain, 2)
    assert sorted_.order == bucketed(Bucket(updates, 8, 2), drawn).order


def test_an_update_sorts_its_examples_and_several_mix_short_and_long():
    one = bucketed(Bucket(1, 8, 2))
    lengths = [len(row.ids) for row in one.sequences["forget"]]
    of_update = [lengths[row] for row in window_of(one, "forget", 8, 16)]
    assert of_update == sorted(of_update)
    several = bucketed(Bucket(6, 8, 2))
    pairs = [window_of(several, "forget", k, k + 2) for k in range(0, 48, 2)]
    assert sorted(max(lengths[r] for r in pair) for pair in pairs) == sorted(
        sorted(lengths * 3)[1::2]  # 48 items are the 16 rows thrice, cut in pairs by length
    )
    means = [
        sum(lengths[r] for r in window_of(several, "forget", k, k + 8)) for k in range(0, 48, 8)
    ]
    assert means != sorted(means)


@pytest.mark.parametrize("bucket", [Bucket(1, 8, 8), Bucket(1, 8, 1), Bucket(3, 8, 1)])
def test_bucketing_leaves_alone_what_cannot_pad_less(bucket):
    assert bucketed(bucket).order == bucketed(None).order


def test_positions_that_predict_a_label_are_found_with_the_batch():
    batch = pad([Sequence((7, 8, 9), (IGNORED, 8, 9)), Sequence((3, 4), (3, 4))])
    assert batch["predicting"].tolist() == [[0, 0, 1], [0, 1, 0]]
