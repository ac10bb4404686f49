"""Scoring texts that begin alike in one row: the beginning once, then what differs, under a tree mask.

TOFU asks for the loss of seven answers to one question. As rows of their own they repeat the question
seven times; as branches of a tree it is forwarded once::

    columns     q_0 ... q_{p-1} | a_0 a_1 ... | b_0 b_1 ... | ...
    positions   0   ... p-1     | p   p+1 ... | p   p+1 ... | ...
    column c sees the question's columns and its own branch's, both up to itself

so the hidden states of a branch are those of question and branch as one text. The label of token t is
predicted from token t - 1: in its branch, or from the question's last column, which predicts the
first token of every branch. The last token of a text predicts nothing and is left out. A text that
shares its beginning with none is a tree without branches, and equal texts are forwarded once.

It needs a model that takes a four-dimensional mask and explicit positions, as most with rotary embeddings
do. Others do not, GPT-Neo's local window among them, which counts columns: `obeys` finds out.
"""

from typing import Any

import torch
from torch import Tensor

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.models.head import hidden_before_head

SHORTEST_STEM = 4  # tokens; less is not worth a mask
_NOISE = {torch.float32: 1e-4, torch.float64: 1e-4}
_NOISE_OF_HALF_PRECISION = 0.05  # of the norm of a hidden state


class Tree:
    """A stem and its branches as one row of columns.

    Args:
        stem: tokens that all its texts begin with, at least one.
    """

    def __init__(self, stem: tuple[int, ...]):
        self.stem = stem
        self.branches: dict[tuple[int, ...], int] = {}
        self.width = len(stem)
        self.texts: list[tuple[int, int]] = []

    def add(self, index: int, branch: tuple[int, ...]) -> None:
        """Add a text: its index among all, and what it has after the stem, without its last token."""
        if branch not in self.branches:
            self.branches[branch] = self.width
            self.width += len(branch)
        self.texts.append((index, self.branches[branch]))

    def column(self, token: int, start: int) -> int:
        """Return the column of a text's token; `start` is where its branch begins."""
        return token if token < len(self.stem) else start + token - len(self.stem)


def plant(sequences: list[Sequence], widest: int, share: bool) -> list[Tree]:
    """Return trees that hold every text once.

    Args:
        sequences: each of at least two tokens.
        widest: columns that a tree with branches may have; a longer text is a tree of its own.
        share: whether texts with the same unlabelled beginning become branches of one tree; equal texts
            share a tree in any case.
    """
    trees: list[Tree] = []
    growing: dict[tuple[int, ...], Tree] = {}
    for index, sequence in enumerate(sequences):
        read = sequence.ids[:-1]
        stem = read[: unlabelled(sequence)]
        if not share or len(stem) < SHORTEST_STEM:
            stem = read
        branch = read[len(stem) :]
        tree = growing.get(stem)
        if tree is None or (branch not in tree.branches and tree.width + len(branch) > widest):
            tree = growing[stem] = Tree(stem)
            trees.append(tree)
        tree.add(index, branch)
    return trees


def hidden_states(model: Any, trees: list[Tree], masked: bool) -> Tensor:
    """Return the hidden states before the output head, (trees, columns, d).

    Args:
        model: a causal language model.
        trees: one batch.
        masked: whether to pass a tree mask and positions; without, trees must have no branches.
    """
    width = max(tree.width for tree in trees)
    ids = torch.zeros(len(trees), width, dtype=torch.int64)
    positions, owners = torch.zeros_like(ids), torch.full_like(ids, -1)  # -1: padding
    for row, tree in enumerate(trees):
        for owner, (tokens, start) in enumerate([(tree.stem, 0), *tree.branches.items()]):
            columns = slice(start, start + len(tokens))
            first = len(tree.stem) if owner else 0
            ids[row, columns] = torch.tensor(tokens)
            positions[row, columns] = torch.arange(first, first + len(tokens))
            owners[row, columns] = owner
    batch: dict[str, Any] = {"input_ids": ids.to(model.device)}
    if not masked:
        batch["attention_mask"] = (owners >= 0).long().to(model.device)
        return hidden_before_head(model, batch)
    seen = (owners[:, None, :] == owners[:, :, None]) | (owners[:, None, :] == 0)
    seen &= torch.ones(width, width, dtype=torch.bool).tril()
    hide = torch.zeros(seen.shape, dtype=model.dtype).masked_fill_(
        ~seen, torch.finfo(model.dtype).min
    )
    batch["attention_mask"] = hide[:, None].to(model.device)
    return hidden_before_head(model, batch, position_ids=positions.to(model.device))


def predictions(trees: list[Tree], sequences: list[Sequence]) -> tuple[Tensor, list[int]]:
    """Return where the labels of a batch of trees are predicted.

    Returns:
        (n, 3): tree, column, and label, text by text in the order of `Tree.texts`; and the number of
        labels of each text.
    """
    places, counts = [], []
    for row, tree in enumerate(trees):
        for index, start in tree.texts:
            labels = sequences[index].labels
            labelled = [t for t in range(1, len(labels)) if labels[t] != IGNORED]
            places += [(row, tree.column(t - 1, start), labels[t]) for t in labelled]
            counts.append(len(labelled))
    return torch.tensor(places), counts


@torch.no_grad()
def obeys(model: Any, width: int) -> bool:
    """Return whether a model reads a tree as it reads its texts one by one; asked with random tokens.

    Windows that count columns show only where columns exceed them, so ask with the widest tree's width.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = tuple(torch.randint(vocabulary, (width,), generator=generator).tolist())
    short = max(1, min(SHORTEST_STEM, width // 3))
    tree = Tree(ids[:short])
    tree.add(0, ids[short:-short])
    tree.add(1, ids[-short:])
    apart = hidden_states(model, [Tree(tree.stem + branch) for branch in tree.branches], False)
    try:
        together = hidden_states(model, [tree], masked=True)[0]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError):  # it does not take such a mask
        return False
    for states, (branch, start) in zip(apart, tree.branches.items(), strict=True):
        columns = [*range(short), *range(start, start + len(branch))]
        difference = (together[columns] - states[: len(columns)]).float().norm(dim=-1)
        size = states[: len(columns)].float().norm(dim=-1)
        noise = _NOISE.get(model.dtype, _NOISE_OF_HALF_PRECISION)
        if not (difference <= noise * size).all():  # what is no number is not equal
            return False
    return True


def unlabelled(sequence: Sequence) -> int:
    """Return how many tokens come before the first label."""
    return next((t for t, label in enumerate(sequence.labels) if label != IGNORED), 0)
