"""Greedy continuations of many prefixes of a text at once, aligned by absolute position.

One teacher-forced pass gives the key-value cache of every prefix. A prefix of length t that must be
decoded becomes a row: a copy of its text's cache, of which positions before t are valid. All rows of
a chunk move along one position at a time; row t joins when the front reaches position t with the token
the teacher-forced pass gave it. So no row is ever padded or shifted, positions and GPT-Neo's local
window (which counts cache columns) stay right, and a chunk takes at most T - min(t) - 1 calls of the
model, whatever the number of rows.

Memory of a chunk: ``rows * T * 2 * layers * kv_heads * head_dim * bytes per number``; rows per chunk
follow from the bytes allowed. Rows are sorted by t, so that late ones share short chunks.

It needs a model whose cache is keys and values by position (`loku_exp.evaluation.lm.aligned_cache`). With
others a batch goes the plain way: its rows move along together all the same, and each step reads them from
their first token on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from loku_exp.data.batches import Padded, pad, to_device
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
from loku_exp.evaluation.tdec.metrics import Greedy
from loku_exp.models.head import apply_term, hidden_before_head, label_positions, logits_of
from loku_exp.runtime.logs import progress

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
    model: Any,
    texts: list[tuple[int, ...]],
    wanted: Wanted,
    cache_bytes: int | None = None,
    *,
    plain: bool = False,
) -> list[Greedy]:
    """Return what a model does with texts of similar length.

    Args:
        model: a causal language model in evaluation mode.
        texts: one batch of ids, each at least 2 long.
        wanted: which prefixes to decode.
        cache_bytes: key-value cache that the rows of a chunk may take; None: what suits the device.
        plain: go the plain way whatever the model is.
    """
    if cache_bytes is None:
        cache_bytes = CPU_CACHE_BYTES if model.device.type == "cpu" else CACHE_BYTES
    batch = to_device(pad([Sequence(ids, ids) for ids in texts]), model.device)
    hidden, layers = (
        (hidden_before_head(model, batch), []) if plain else read_with_cache(model, batch)
    )
    logprobs, argmax = _predictions(model, batch, hidden)
    rows = [
        _Row(text, t, argmax[text][t - 1])
        for text, ids in enumerate(texts)
        for t in wanted(ids, argmax[text])
    ]
    rows.sort(key=lambda row: (row.prefix, row.text))
    size = len(texts)  # of a chunk that is read anew: what one forward pass has room for
    if rows and layers:
        a_text = sum(k.nbytes + v.nbytes for k, v in layers) // len(texts)
        cached = max(1, cache_bytes // a_text)
        if aligns(model, batch, layers, hidden[:cached]):
            size = cached
        else:
            layers = []
    decoded: list[list[list[int]]] = [[] for _ in texts]
    with progress(len(rows), "decoding", "beginning") as bar:
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            for row, tokens in zip(chunk, _decode(model, chunk, layers, batch), strict=True):
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
    return _predictions(model, batch, hidden_before_head(model, batch, **options))


def _predictions(
    model: Any, batch: Padded, hidden: Tensor
) -> tuple[list[list[float]], list[list[int]]]:
    rows, columns = label_positions(batch)
    labels = batch["labels"][rows, columns + 1]
    head = model.get_output_embeddings()
    scores = apply_term(logprob_and_argmax, hidden[rows, columns], labels, head).cpu()
    counts = torch.bincount(rows.cpu(), minlength=len(batch["input_ids"])).tolist()
    parts = scores.split(counts)
    return [p[:, 0].tolist() for p in parts], [p[:, 1].long().tolist() for p in parts]


def logprob_and_argmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (n, 2) float64: log-probability of the label, and the argmax (ids are exact in float64)."""
    logprobs = logits.log_softmax(-1).gather(1, labels[:, None])
    return torch.cat([logprobs.double(), logits.argmax(-1, keepdim=True).double()], dim=1)


def _decode(
    model: Any, rows: list[_Row], layers: list[KeyValues], batch: Padded
) -> list[list[int]]:
    """Return for each row the tokens from its prefix to the batch's width.

    Args:
        model: a causal language model.
        rows: sorted by prefix.
        layers: keys and values of the batch; empty: rows are read from their first token at each step.
        batch: the texts.
    """
    texts = torch.tensor([row.text for row in rows], device=model.device)
    prefixes = [row.prefix for row in rows]
    tokens = batch["input_ids"][texts]  # of what comes after a prefix and a token, nothing is read
    places = torch.arange(len(rows), device=model.device)
    firsts = torch.tensor([row.token for row in rows], device=model.device)
    tokens[places, torch.tensor(prefixes, device=model.device)] = firsts
    front = Front()
    cache = aligned_cache(layers, texts, front) if layers else None
    head = model.get_output_embeddings()
    for position in range(prefixes[0], tokens.shape[1] - 1):
        while front.rows < len(rows) and prefixes[front.rows] <= position:
            front.rows += 1
        front.position = position
        seen = tokens[: front.rows, : position + 1]
        if cache is None:
            step = {"input_ids": seen, "attention_mask": torch.ones_like(seen)}
            logits = logits_of(hidden_before_head(model, step)[:, -1], head)
        else:
            cached = {"past_key_values": cache, "use_cache": True}
            logits = model(input_ids=seen[:, -1:], **cached).logits[:, -1]
        tokens[: front.rows, position + 1] = logits.argmax(-1)
    return [row[prefix:] for row, prefix in zip(tokens.tolist(), prefixes, strict=True)]
