"""From records to padded batches: one shuffled stream of forget examples, each with a retain example."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from loku_exp.data.records import IGNORED, Sequence


class Padded(TypedDict):
    """A right-padded batch; masks come from lengths, never from ids.

    Keys:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64, 1 on real tokens.
        labels: (B, T) int64, unshifted, -100 outside the loss.
        predicting: (2, n) int64, rows and columns of the positions that predict a label, in order. Found
            where the batch is made: on an accelerator their number is a wait for the device.
        denominator: () float, what a sum over labelled tokens is divided by to give the mean.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    predicting: Tensor
    denominator: Tensor


Batch = dict[str, Padded]
Item = dict[str, tuple[list[Sequence], float]]
"""By set: the sequences an item brings, and its share of the micro-batch's denominator."""


def pad(sequences: list[Sequence], denominator: float | None = None) -> Padded:
    """Right-pad sequences to the longest one.

    Args:
        sequences: at least one.
        denominator: None for the number of labelled tokens of these sequences (token mean).
    """
    length = max(len(sequence.ids) for sequence in sequences)
    input_ids = torch.zeros(len(sequences), length, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, sequence in enumerate(sequences):
        size = len(sequence.ids)
        input_ids[row, :size] = torch.tensor(sequence.ids)
        attention_mask[row, :size] = 1
        labels[row, :size] = torch.tensor(sequence.labels)
    predicting = torch.nonzero(labels[:, 1:] != IGNORED).T.contiguous()
    if denominator is None:
        denominator = float(predicting.shape[1])
    return Padded(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=labels,
        predicting=predicting,
        denominator=torch.tensor(denominator),
    )


def to_device(batch: Padded, device: torch.device | str) -> Padded:
    """Move a batch to a device."""
    return Padded(
        input_ids=batch["input_ids"].to(device),
        attention_mask=batch["attention_mask"].to(device),
        labels=batch["labels"].to(device),
        predicting=batch["predicting"].to(device),
        denominator=batch["denominator"].to(device),
    )


@dataclass(frozen=True)
class Bucket:
    """How examples are sorted by length before they are cut into micro-batches, so that these pad less.

    Attributes:
        updates: whose examples are sorted together; 1: an update keeps its examples.
        items_per_update: items of an update.
        micro_batch_size: items of a micro-batch; divides `items_per_update`.
    """

    updates: int
    items_per_update: int
    micro_batch_size: int


class Stream(Dataset):
    """A fixed number of examples from shuffled epochs, each with its share of random retain examples.

    The official code of TOFU and LoKU draws, for every forget example, one retain example uniformly
    with replacement, anew in every epoch. Epochs follow each other without a short last batch.

    Args:
        sequences: named sets; the first sets the epochs, each further one is drawn from uniformly.
        num_items: length of the stream; item k is the same in every process.
        seed: of the shuffles and draws.
        items_per_update: with a value, means are over the labelled tokens of an update (this many
            items, split into `micro_batch_size`s) instead of each micro-batch.
        drawn_per_update: with `items_per_update`, how many examples of each further set an update
            takes, spread evenly over its items; None: one an item.
        bucket: sorts examples by length; None: they stay as drawn.
        paired: sets that have a text for each of the first, which is drawn with it.
    """

    def __init__(
        self,
        sequences: dict[str, list[Sequence]],
        num_items: int,
        seed: int,
        items_per_update: int | None = None,
        drawn_per_update: int | None = None,
        bucket: Bucket | None = None,
        paired: frozenset[str] = frozenset(),
    ):
        generator = torch.Generator().manual_seed(seed)
        self.sequences = sequences
        self.num_items = num_items
        self.order: dict[str, list[list[int]]] = {}
        for name, rows in sequences.items():
            if name in paired:
                continue
            if not self.order:
                self.order[name] = [[row] for row in _epochs(len(rows), num_items, generator)]
            else:
                sizes = _sizes(num_items, items_per_update, drawn_per_update)
                draws = torch.randint(len(rows), (sum(sizes),), generator=generator).tolist()
                ends = list(accumulate(sizes))
                self.order[name] = [
                    draws[end - size : end] for end, size in zip(ends, sizes, strict=True)
                ]
        if bucket is not None:
            lengths = {name: [len(row.ids) for row in sequences[name]] for name in self.order}
            self.order = _bucketed(self.order, lengths, bucket, generator)
        self.order |= {
            name: next(iter(self.order.values())) for name in sequences if name in paired
        }
        self.mean_labels = {
            name: _mean_labels(
                [sum(rows[i].num_labels for i in item) for item in self.order[name]],
                items_per_update,
            )
            for name, rows in sequences.items()
        }

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, index: int) -> Item:
        return {
            name: ([rows[i] for i in self.order[name][index]], self.mean_labels[name][index])
            for name, rows in self.sequences.items()
        }


def collate(items: list[Item]) -> Batch:
    """Pad the items of a micro-batch, set by set; they bring at least one sequence of each."""
    batch = {}
    for name in items[0]:
        sequences = [sequence for item in items for sequence in item[name][0]]
        batch[name] = pad(sequences, denominator=sum(item[name][1] for item in items))
    return batch


def _sizes(num_items: int, per_update: int | None, drawn: int | None) -> list[int]:
    """Return how many examples of a further set each item brings."""
    if per_update is None or drawn is None:
        return [1] * num_items
    ends = [(i + 1) * drawn // per_update for i in range(per_update)]
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return sizes * (num_items // per_update)


def _bucketed(
    order: dict[str, list[list[int]]],
    lengths: dict[str, list[int]],
    bucket: Bucket,
    generator: torch.Generator,
) -> dict[str, list[list[int]]]:
    """Return the order with the examples of each window sorted by length.

    Every window keeps its examples and every item its number of them. A window of several updates has
    its micro-batches shuffled, the same way in every set, so that no update is all short or all long.
    Where nothing can be saved, micro-batches of one item or a window of one, the order stays as it is.

    Args:
        order: by set, the rows each item takes.
        lengths: by set, in tokens.
        bucket: the windows and their micro-batches.
        generator: of the shuffles.
    """
    size, window = bucket.micro_batch_size, bucket.updates * bucket.items_per_update
    if size in (1, window):
        return order
    sorted_order: dict[str, list[list[int]]] = {name: [] for name in order}
    num_items = len(next(iter(order.values())))
    for start in range(0, num_items, window):
        stop = min(start + window, num_items)
        count = (stop - start) // size
        shuffled = list(range(count))
        if bucket.updates > 1:
            shuffled = torch.randperm(count, generator=generator).tolist()
        for name, items in order.items():
            rows = [row for item in items[start:stop] for row in item]
            rows.sort(key=lengths[name].__getitem__)
            cuts = [k * len(rows) // count for k in range(count + 1)]
            taken = iter([row for k in shuffled for row in rows[cuts[k] : cuts[k + 1]]])
            sorted_order[name] += [[next(taken) for _ in item] for item in items[start:stop]]
    return sorted_order


def _epochs(size: int, num_items: int, generator: torch.Generator) -> Iterator[int]:
    remaining = num_items
    while remaining > 0:
        yield from torch.randperm(size, generator=generator)[:remaining].tolist()
        remaining -= size


def _mean_labels(counts: list[int], items_per_update: int | None) -> list[float]:
    """Return, for each item, its share of the denominator of its micro-batch.

    Own label count: the micro-batch's denominators add up to its labels. Mean count of its update:
    every micro-batch of the update is divided alike, so the mean over micro-batches is the token
    mean of the update.
    """
    if items_per_update is None:
        return [float(count) for count in counts]
    means = []
    for start in range(0, len(counts), items_per_update):
        update = counts[start : start + items_per_update]
        means += [sum(update) / len(update)] * len(update)
    return means
