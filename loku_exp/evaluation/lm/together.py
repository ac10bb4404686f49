"""Greedy continuations of prompts of different lengths that move along one position together.

The prompts are read at once, padded on the right. From then on row i joins when the front reaches the end
of its prompt, and leaves at its end-of-text or at the end of its budget; what has left is dropped from the
cache now and then. So no row is padded or shifted, keys and values are written in place, and a step costs
what its rows cost. transformers' own generation computes every row of a batch until the last one ends, and
copies the cache at each step; `loku_exp.evaluation.lm.generation` is that plain way.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm.aligned_cache import (
    CACHE_BYTES,
    CPU_CACHE_BYTES,
    Front,
    KeyValues,
    aligned_cache,
    aligns,
    read_with_cache,
)
from loku_exp.models.head import logits_of

DROPPED_AT = 0.25  # share of the rows that have left, at which the cache is copied without them


@torch.no_grad()
def continued_together(
    model: Any, prompts: list[tuple[int, ...]], budgets: list[int], *, end_of_text: int | None
) -> list[list[int]] | None:
    """Continue prompts greedily, as `loku_exp.evaluation.lm.generation.continued` does.

    Args:
        model: a causal language model in evaluation mode.
        prompts: ids, at least one each.
        budgets: tokens each is continued by at most.
        end_of_text: id before which a continuation ends; None: it goes on.

    Returns:
        What each is continued by; None where the model does not take a cache by position.
    """
    order = sorted((i for i, budget in enumerate(budgets) if budget), key=lambda i: len(prompts[i]))
    found: list[list[int]] = [[] for _ in prompts]
    allowed = CPU_CACHE_BYTES if model.device.type == "cpu" else CACHE_BYTES
    while order:
        batch = to_device(pad([Sequence(ids := prompts[i], ids) for i in order]), model.device)
        hidden, layers = read_with_cache(model, batch)
        if not layers or not aligns(model, batch, layers, hidden):
            return None
        longest = max(len(prompts[i]) + budgets[i] for i in order)
        a_token = sum(k.nbytes + v.nbytes for k, v in layers) // batch["input_ids"].numel()
        chunk = order[: max(1, allowed // (a_token * longest))]
        rows = _Rows(prompts, budgets, chunk)
        logits = logits_of(_last_of(hidden, rows), model.get_output_embeddings())
        rows.take(rows.there, logits.argmax(-1).tolist(), end_of_text)
        _go_along(model, rows, _roomy(layers, len(chunk), longest), end_of_text)
        for place, i in enumerate(chunk):
            new = rows.found[place]
            found[i] = new[: new.index(end_of_text)] if end_of_text in new else new
        order = order[len(chunk) :]
    return found


class _Rows:
    """Rows of a chunk on their way, in the order of their prompts' lengths."""

    def __init__(self, prompts: list[tuple[int, ...]], budgets: list[int], chunk: list[int]):
        self.starts = [len(prompts[i]) for i in chunk]
        self.budgets = [budgets[i] for i in chunk]
        self.found: list[list[int]] = [[] for _ in chunk]
        self.ended = [False] * len(chunk)
        self.there = list(range(len(chunk)))  # which row each row of the cache is

    def joined(self, position: int) -> list[int]:
        """Return the rows of the cache that have come to a position; they are its first ones."""
        return [row for row in self.there if self.starts[row] <= position]

    def tokens(self, rows: list[int], position: int) -> list[int]:
        """Return what the rows hold at a position; of those that have ended, anything."""
        return [0 if self.ended[r] else self.found[r][position - self.starts[r]] for r in rows]

    def take(self, rows: list[int], tokens: list[int], end_of_text: int | None) -> None:
        """Continue those rows that have not ended by a token each."""
        for row, token in zip(rows, tokens, strict=True):
            if not self.ended[row]:
                self.found[row].append(token)
                full = len(self.found[row]) >= self.budgets[row]
                self.ended[row] = full or token == end_of_text


def _go_along(model: Any, rows: _Rows, layers: list[KeyValues], end_of_text: int | None) -> None:
    """Continue rows until all have ended; `layers` holds keys and values of their prompts, and room."""
    front = Front()
    cache, position = aligned_cache(layers, None, front), rows.starts[0]
    layers.clear()  # the cache has them
    while not all(rows.ended):
        joined = rows.joined(position)
        if sum(rows.ended[row] for row in joined) > DROPPED_AT * len(joined):
            _drop(rows, cache)
            joined = rows.joined(position)
        if joined:
            front.rows, front.position = len(joined), position
            fed = torch.tensor(rows.tokens(joined, position), device=model.device)[:, None]
            logits = model(input_ids=fed, past_key_values=cache, use_cache=True).logits[:, -1]
            rows.take(joined, logits.argmax(-1).tolist(), end_of_text)
        position += 1


def _drop(rows: _Rows, cache: DynamicCache) -> None:
    """Take the rows that have ended out of the cache."""
    keep = [place for place, row in enumerate(rows.there) if not rows.ended[row]]
    rows.there = [rows.there[place] for place in keep]
    layers: list[Any] = cache.layers
    places = torch.tensor(keep, device=layers[0].keys.device)
    for layer in layers:
        layer.keys, layer.values = (
            part.index_select(0, places) for part in (layer.keys, layer.values)
        )


def _roomy(layers: list[KeyValues], count: int, longest: int) -> list[KeyValues]:
    """Return keys and values of the first rows, with room up to a length."""

    def widened(part: Tensor) -> Tensor:
        wide = part.new_zeros(count, part.shape[1], max(longest, part.shape[2]), part.shape[3])
        wide[:, :, : part.shape[2]] = part[:count]
        return wide

    return [(widened(keys), widened(values)) for keys, values in layers]


def _last_of(hidden: Tensor, rows: _Rows) -> Tensor:
    """Return the hidden states that predict what follows each prompt."""
    last = torch.tensor(rows.starts, device=hidden.device) - 1
    return hidden[torch.arange(len(last), device=hidden.device), last]
