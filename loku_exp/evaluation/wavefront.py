"""Greedy continuations of many prefixes of a text at once, aligned by absolute position.

One teacher-forced pass gives the key-value cache of every prefix. A prefix of length t that must be
decoded becomes a row that continues it (`loku_exp.evaluation.shared_prefix`). All rows of a chunk move
along one position at a time; row t joins when the front reaches position t with the token the
teacher-forced pass gave it. So no row is ever padded or shifted, positions and GPT-Neo's local window
(which counts cache columns) stay right, and a chunk takes at most T - min(t) - 1 calls of the model,
whatever the number of rows.

Rows are sorted by t and cut into blocks. Few blocks mean few operations, many mean that rows share all
they can: a block ends where its rows would keep `SPREAD_BYTES` a layer that they could share. A block of
R rows of D texts that begin at t keeps ``R * (T - t) + D * t`` columns, each of ``2 * layers * kv_heads *
head_dim`` numbers. A chunk takes as many blocks as the bytes allowed hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from loku_exp.data.batches import Padded, pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.evaluation.extraction import Greedy
from loku_exp.evaluation.shared_prefix import (
    Block,
    Front,
    KeyValues,
    SharedLayer,
    UnsupportedAttention,
    attending,
    supported,
)
from loku_exp.losses.head import apply_term, hidden_before_head, label_positions

DECODE_BYTES = 4_000_000_000
SPREAD_BYTES = 8_000_000  # near the time that a block's operations take on a CPU
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
    model: Any, texts: list[tuple[int, ...]], wanted: Wanted, cache_bytes: int
) -> list[Greedy]:
    """Return what a model does with texts of similar length.

    Args:
        model: a causal language model in evaluation mode.
        texts: one batch of ids, each at least 2 long.
        wanted: which prefixes to decode.
        cache_bytes: key-value cache that the rows of a chunk may take.
    """
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
    column_bytes = sum(k.nbytes + v.nbytes for k, v in layers) // (len(texts) * width)
    columns = cache_bytes // column_bytes
    decoded: list[list[list[int]]] = [[] for _ in texts]
    with tqdm(total=len(rows), desc="decoding", unit="prefix", leave=False, disable=None) as bar:
        for chunk in _chunks(rows, width, columns, SPREAD_BYTES * len(layers) // column_bytes):
            answers = _decode(model, chunk, layers, width)
            chunk_rows = [row for block in chunk for row in block]
            for row, tokens in zip(chunk_rows, answers, strict=True):
                length = len(texts[row.text])
                decoded[row.text].append([row.prefix, *tokens[: length - row.prefix]])
            bar.update(len(chunk_rows))
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
    scores = apply_term(_logprob_and_argmax, hidden, labels, model.get_output_embeddings()).cpu()
    counts = torch.bincount(rows.cpu(), minlength=len(batch["input_ids"])).tolist()
    parts = scores.split(counts)
    return [p[:, 0].tolist() for p in parts], [p[:, 1].long().tolist() for p in parts]


def _logprob_and_argmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (n, 2) float64: log-probability of the label, and the argmax (ids are exact in float64)."""
    logprobs = logits.log_softmax(-1).gather(1, labels[:, None])
    return torch.cat([logprobs.double(), logits.argmax(-1, keepdim=True).double()], dim=1)


def _chunks(rows: list[_Row], width: int, columns: int, spread: int) -> list[list[list[_Row]]]:
    """Return chunks of blocks of rows; `rows` is sorted by prefix.

    Args:
        rows: what to decode.
        width: positions that rows may reach.
        columns: of key-value cache that a chunk may take; one row fits in any case.
        spread: columns that the rows of a block may keep and could share.
    """
    largest = max(1, columns // width)
    blocks: list[list[_Row]] = []
    for row in rows:
        block = blocks[-1] if blocks else []
        kept = len(block) * (row.prefix - block[0].prefix) if block else 0
        if not block or kept > spread or len(block) == largest:
            blocks.append(block := [])
        block.append(row)
    chunks: list[list[list[_Row]]] = []
    room = 0
    for block in blocks:
        first, texts = block[0].prefix, {row.text for row in block}
        needed = len(block) * (width - first) + len(texts) * first
        if not chunks or needed > room:
            chunks.append([])
            room = columns
        chunks[-1].append(block)
        room -= needed
    return chunks


def _decode(
    model: Any, chunk: list[list[_Row]], cache: list[KeyValues], width: int
) -> list[list[int]]:
    """Return for each row of a chunk the tokens from its prefix to `width`."""
    front = Front()
    if supported(model):
        try:
            with attending(model, front):
                return _advance(model, chunk, cache, width, front, whole_rows=False)
        except UnsupportedAttention:
            front = Front()
    return _advance(model, chunk, cache, width, front, whole_rows=True)


def _advance(
    model: Any,
    chunk: list[list[_Row]],
    cache: list[KeyValues],
    width: int,
    front: Front,
    whole_rows: bool,
) -> list[list[int]]:
    rows = [row for block in chunk for row in block]
    starts = [0, *accumulate(len(block) for block in chunk)]
    blocks = [
        Block(start, [row.text for row in block], [row.prefix for row in block], model.device)
        for start, block in zip(starts, chunk, strict=False)
    ]
    aligned = DynamicCache()
    aligned.layers = [SharedLayer(layer, blocks, width, front, whole_rows) for layer in cache]
    tokens = torch.zeros(len(rows), width, dtype=torch.int64, device=model.device)
    prefixes = [row.prefix for row in rows]
    tokens[torch.arange(len(rows)), prefixes] = torch.tensor(
        [row.token for row in rows], device=model.device
    )
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
