"""A key-value cache of rows that move along one position at a time, written in place.

It needs a model whose cache is keys and values by position. Others keep a state instead, as Mamba, or
arrange them in their own way. So before a batch is decoded, one token is put after a cached beginning, and
must give what the pass without a cache gave there: `aligns`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from loku_exp.data.batches import Padded
from loku_exp.models.head import hidden_before_head

CPU_CACHE_BYTES, CACHE_BYTES = 1_000_000_000, 4_000_000_000  # keys and values of a chunk's rows
KeyValues = tuple[Any, Any]
"""Keys and values of one layer, (texts, heads, T, head_dim) each."""
_NOISE = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the norm of a hidden state
_NOISE_OF_HALF_PRECISION = (
    0.05  # of 30 layers in bfloat16 .02 to .05; wrong places are off by .15 and more
)
_PLACES = 5
TAKES_NO_CACHE = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)


@dataclass
class Front:
    """How far a chunk is: its first `rows` rows are at `position`."""

    rows: int = 0
    position: int = 0


def read_with_cache(model: Any, batch: Padded) -> tuple[Tensor, list[KeyValues]]:
    """Return the hidden states before the head, and keys and values by layer; none if it has none."""
    cache = DynamicCache()
    try:
        hidden = hidden_before_head(model, batch, past_key_values=cache, use_cache=True)
        layers: list[KeyValues] = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr]
        shapes = {tuple(part.shape[::2]) for layer in layers for part in layer}
    except torch.OutOfMemoryError:
        raise
    except TAKES_NO_CACHE:
        return hidden_before_head(model, batch), []
    return hidden, layers if shapes == {tuple(batch["input_ids"].shape)} else []


def aligns(model: Any, batch: Padded, layers: list[KeyValues], hidden: Tensor) -> bool:
    """Return whether a token after a cached beginning gives its teacher-forced hidden state.

    In half precision by the median of the last places, since one of many may be off by chance.

    Args:
        model: a causal language model.
        batch: the texts.
        layers: their keys and values.
        hidden: hidden states of the first texts, which are looked at.
    """
    last = int(batch["attention_mask"].sum(1).min()) - 1  # a position that every text has
    exact = hidden.dtype in _NOISE
    places = range(last, max(-1, last - (1 if exact else _PLACES)), -1)
    try:
        shares = [_difference(model, batch, layers, hidden, place) for place in places]
    except torch.OutOfMemoryError:
        raise
    except TAKES_NO_CACHE:
        return False
    noise = _NOISE.get(hidden.dtype, _NOISE_OF_HALF_PRECISION)
    return bool((torch.stack(shares).median(dim=0).values <= noise).all())


def _difference(
    model: Any, batch: Padded, layers: list[KeyValues], hidden: Tensor, place: int
) -> Tensor:
    """Return how far hidden states at a place are from their teacher-forced ones, as a share of these."""
    front = Front(len(hidden), place)
    cache = aligned_cache(layers, torch.arange(len(hidden), device=hidden.device), front)
    token = batch["input_ids"][: len(hidden), place : place + 1]
    step = {"input_ids": token, "attention_mask": None}
    again = hidden_before_head(model, step, past_key_values=cache, use_cache=True)[:, 0]
    expected = hidden[:, place].float()
    return (again.float() - expected).norm(dim=-1) / expected.norm(dim=-1)


def aligned_cache(layers: list[KeyValues], texts: Tensor | None, front: Front) -> DynamicCache:
    """Return a cache of rows, each beginning as one of the texts did; None: the texts' own, not a copy."""
    cache = DynamicCache()
    cache.layers = [_Layer(layer, texts, front) for layer in layers]
    return cache


class _Layer(DynamicLayer):
    """A layer's cache of a chunk of rows, written in place at the front's position."""

    keys: Tensor
    values: Tensor

    def __init__(self, of_texts: KeyValues, texts: Tensor | None, front: Front):
        super().__init__()
        self.front = front
        self.keys, self.values = (
            part if texts is None else part.index_select(0, texts) for part in of_texts
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one position of the active rows; return all positions up to it."""
        rows, position = self.front.rows, self.front.position
        self.keys[:rows, :, position] = key_states[:, :, 0]
        self.values[:rows, :, position] = value_states[:, :, 0]
        return self.keys[:rows, :, : position + 1], self.values[:rows, :, : position + 1]

    def get_seq_length(self) -> int:
        """Return how many positions lie before the front."""
        return self.front.position
