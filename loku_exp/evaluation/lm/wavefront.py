"""Greedy continuations of many prefixes of a text at once, aligned by absolute position.

One teacher-forced pass gives the key-value cache of every prefix. A prefix of length t that must be
decoded becomes a row: a copy of its text's cache, of which positions before t are valid. All rows of
a chunk move along one position at a time; row t joins when the front reaches position t with the token
the teacher-forced pass gave it. So no row is ever padded or shifted, positions and GPT-Neo's local
window (which counts cache columns) stay right, and a chunk takes at most T - min(t) - 1 calls of the
model, whatever the number of rows.

Memory of a chunk: ``rows * T * 2 * layers * kv_heads * head_dim * bytes per number``; rows per chunk
follow from the bytes allowed. Rows are sorted by t, so that late ones share short chunks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from loku_exp.data.batches import Padded, pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.evaluation.tdec.metrics import Greedy
from loku_exp.models.head import apply_term, hidden_before_head, label_positions
from loku_exp.runtime.logs import progress

CPU_CACHE_BYTES, CACHE_BYTES = 1_000_000_000, 4_000_000_000  # keys and values of a chunk's rows
KeyValues = tuple[Any, Any]
"""Keys and values of one layer, (texts, heads, T, head_dim) each."""
Wanted = Callable[[tuple[int, ...], list[int]], list[int]]
"""From ids and argmax to the prefix lengths to decode."""


@dataclass(frozen=True)
class _Row:
    """One prefix to decode: of which text of the batch, its length, and the token after it."""

    text: int
    prefix: int
    token: int


@torch.no_grad()
def greedy_continuations(
    model: Any, texts: list[tuple[int, ...]], wanted: Wanted, cache_bytes: int | None = None
) -> list[Greedy]:
    """Return what a model does with texts of similar length.

    Args:
        model: a causal language model in evaluation mode.
        texts: one batch of ids, each at least 2 long.
        wanted: which prefixes to decode.
        cache_bytes: key-value cache that the rows of a chunk may take; None: what suits the device.
    """
    if cache_bytes is None:
        cache_bytes = CPU_CACHE_BYTES if model.device.type == "cpu" else CACHE_BYTES
    batch = to_device(pad([Sequence(ids, ids) for ids in texts]), model.device)
    cache = DynamicCache()
    logprobs, argmax = teacher_forced(model, batch, cache)
    rows = [
        _Row(text, t, argmax[text][t - 1])
        for text, ids in enumerate(texts)
        for t in wanted(ids, argmax[text])
    ]
    rows.sort(key=lambda row: (row.prefix, row.text))
    width = batch["input_ids"].shape[1]
    layers: list[KeyValues] = [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr]
    size = max(1, cache_bytes // (sum(k.nbytes + v.nbytes for k, v in layers) // len(texts)))
    decoded: list[list[list[int]]] = [[] for _ in texts]
    with progress(len(rows), "decoding", "prefix") as bar:
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            for row, tokens in zip(chunk, _decode(model, chunk, layers, width), strict=True):
                length = len(texts[row.text])
                decoded[row.text].append([row.prefix, *tokens[: length - row.prefix]])
            bar.update(len(chunk))
    return [Greedy(*results) for results in zip(logprobs, argmax, decoded, strict=True)]


def teacher_forced(
    model: Any, batch: Padded, cache: DynamicCache | None = None
) -> tuple[list[list[float]], list[list[int]]]:
    """Return, per text, log p of each predicted token and the likeliest token in its place.

    Args:
        model: a causal language model.
        batch: every token labelled.
        cache: filled with keys and values, if given.
    """
    options = {} if cache is None else {"past_key_values": cache, "use_cache": True}
    rows, columns = label_positions(batch)
    hidden = hidden_before_head(model, batch, **options)[rows, columns]
    labels = batch["labels"][rows, columns + 1]
    scores = apply_term(logprob_and_argmax, hidden, labels, model.get_output_embeddings()).cpu()
    counts = torch.bincount(rows.cpu(), minlength=len(batch["input_ids"])).tolist()
    parts = scores.split(counts)
    return [p[:, 0].tolist() for p in parts], [p[:, 1].long().tolist() for p in parts]


def logprob_and_argmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (n, 2) float64: log-probability of the label, and the argmax (ids are exact in float64)."""
    logprobs = logits.log_softmax(-1).gather(1, labels[:, None])
    return torch.cat([logprobs.double(), logits.argmax(-1, keepdim=True).double()], dim=1)


def _decode(model: Any, rows: list[_Row], cache: list[KeyValues], width: int) -> list[list[int]]:
    """Return for each row the tokens from its prefix to `width`; rows are sorted by prefix."""
    texts = torch.tensor([row.text for row in rows], device=model.device)
    front = _Front()
    aligned = DynamicCache()
    aligned.layers = [_AlignedLayer(layer, texts, front) for layer in cache]
    tokens = torch.zeros(len(rows), width, dtype=torch.int64, device=model.device)
    prefixes = [row.prefix for row in rows]
    places = torch.arange(len(rows), device=model.device)
    firsts = torch.tensor([row.token for row in rows], device=model.device)
    tokens[places, torch.tensor(prefixes, device=model.device)] = firsts
    for position in range(prefixes[0], width - 1):
        while front.rows < len(rows) and prefixes[front.rows] <= position:
            front.rows += 1
        front.position = position
        logits = model(
            input_ids=tokens[: front.rows, position : position + 1],
            past_key_values=aligned,
            use_cache=True,
        ).logits
        tokens[: front.rows, position + 1] = logits[:, -1].argmax(-1)
    return [row[prefix:] for row, prefix in zip(tokens.tolist(), prefixes, strict=True)]


@dataclass
class _Front:
    """How far a chunk is: its first `rows` rows are at `position`."""

    rows: int = 0
    position: int = 0


class _AlignedLayer(DynamicLayer):
    """A layer's cache of a chunk of rows, written in place at the front's position."""

    keys: Tensor
    values: Tensor

    def __init__(self, of_texts: KeyValues, texts: Tensor, front: _Front):
        super().__init__()
        self.front = front
        self.keys, self.values = (part.index_select(0, texts) for part in of_texts)
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
