"""Attention over the keys and values of a text that many rows continue from: read once, not once a row.

Row r continues a text after its first t_r tokens, so before t_r its keys and values are the text's. Rows
sorted by t_r are cut into blocks of few positions; a block whose rows begin at `first` or later keeps

- the text's columns before `first` once for all its rows of a text (`shared`), and
- columns from `first` on for every row (`own`), of which those before t_r are the text's as well.

Scores over both together are what attention over the whole of a row's columns gives::

    s = scale * [q K_shared^T, q K_own^T],   o = softmax(s) [V_shared; V_own]

Every row is at the same absolute position, so a local window is a slice of columns and nothing is
masked. A product with `shared` has all rows of a text as its left side and reads the text's keys once,
where one product a row is bound by memory. With rows spread evenly over t = 1..T, `own` is half of what
whole rows hold and read.

Models reach this through transformers' attention interface; GPT-Neo, whose attention is a method of its
own (not scaled, scores in fp32), through that method. For any other model whole rows are put together.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import DynamicLayer
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

KeyValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, (texts or rows, heads, positions, head_dim) each."""
_NAME = "loku_exp_shared_prefix"
_HARMLESS = {"dropout", "position_ids", "cache_position", "use_cache", "is_causal"}


class UnsupportedAttention(Exception):
    """A model's attention asks for more than queries, keys, values, a scale and a window."""


class Block:
    """Consecutive rows of a chunk that begin at nearly the same position.

    Args:
        start: the block's first row in the chunk.
        texts: the text each row continues.
        prefixes: where each begins, ascending.
        device: of the model.
    """

    def __init__(self, start: int, texts: list[int], prefixes: list[int], device: torch.device):
        self.start = start
        self.first, self.last = prefixes[0], prefixes[-1]
        used = sorted(set(texts))
        seen = dict.fromkeys(used, 0)
        slots = []
        for text in texts:
            slots.append(seen[text])
            seen[text] += 1
        self.depth = max(slots) + 1
        self.texts = torch.tensor(texts, device=device)
        self.used = torch.tensor(used, device=device)
        self.place = torch.tensor([used.index(text) for text in texts], device=device)
        self.slot = torch.tensor(slots, device=device)

    def gathered(self, rows: Tensor) -> Tensor:
        """Return (texts, heads, depth * g, x) of (n, heads, g, x): the rows of a text side by side."""
        count, heads, group, size = rows.shape
        spread = rows.new_zeros(len(self.used), self.depth, heads, group, size)
        spread[self.place[:count], self.slot[:count]] = rows
        return spread.transpose(1, 2).reshape(len(self.used), heads, self.depth * group, size)

    def scattered(self, values: Tensor, count: int) -> Tensor:
        """Return (n, heads, g, x) of (texts, heads, depth * g, x); undoes `gathered`."""
        texts, heads, queries, size = values.shape
        apart = values.view(texts, heads, self.depth, queries // self.depth, size).transpose(1, 2)
        return apart[self.place[:count], self.slot[:count]]


@dataclass
class Front:
    """How far a chunk of rows is: its first `rows` rows are at `position`.

    Attributes:
        rows: active rows.
        position: of their newest token.
        layer: the layer that was written last and whose attention is still to come.
    """

    rows: int = 0
    position: int = 0
    layer: "SharedLayer | None" = None


class SharedLayer(DynamicLayer):
    """One layer's cache of a chunk of rows, written in place at the front's position.

    Args:
        of_texts: what the teacher-forced pass left.
        blocks: the rows.
        width: positions that rows may reach.
        front: moved by the caller.
        whole: whether `update` hands out whole rows, for attention that knows nothing of this.
    """

    def __init__(
        self, of_texts: KeyValues, blocks: list[Block], width: int, front: Front, whole: bool
    ):
        super().__init__()
        self.front, self.whole, self.is_initialized = front, whole, True
        self.blocks = [
            (block, _shared(of_texts, block), _own(of_texts, block, width)) for block in blocks
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one position of the active rows."""
        for block, rows, _, own in self._begun():
            for store, states in zip(own, (key_states, value_states), strict=True):
                written = states[block.start : block.start + rows, :, 0]
                store[:rows, :, self.front.position - block.first] = written
        if self.whole:
            return self._whole_rows()
        if self.front.layer is not None:
            raise RuntimeError("an attention layer did not read the shared prefix")
        self.front.layer = self
        return key_states, value_states

    def attend(
        self, query: Tensor, scale: float, window: int | None, scores_dtype: torch.dtype
    ) -> Tensor:
        """Return the output of attention, of the query's shape.

        Args:
            query: (rows, heads, 1, head_dim); heads are a multiple of those of the keys.
            scale: of the scores.
            window: positions a token sees, itself included; None for all.
            scores_dtype: in which scores are computed.
        """
        position = self.front.position
        low = 0 if window is None else max(0, position + 1 - window)
        outputs = []
        for block, count, shared, own in self._begun():
            heads, size = own[0].shape[1], query.shape[-1]
            rows = query[block.start : block.start + count].reshape(
                count, heads, query.shape[1] // heads, size
            )
            seen = [part[:, :, min(low, block.first) :] for part in shared]
            mine = slice(max(0, low - block.first), position - block.first + 1)
            keys, values = (part[:count, :, mine] for part in own)
            rows = rows.to(scores_dtype)
            scores = [
                block.scattered(_product(block.gathered(rows), seen[0].mT), count),
                _product(rows, keys.mT),
            ]
            softmax_dtype = torch.promote_types(scores_dtype, torch.float32)
            weights = (torch.cat(scores, -1) * scale).softmax(-1, dtype=softmax_dtype)
            early, late = weights.to(values.dtype).split([s.shape[-1] for s in scores], -1)
            output = block.scattered(block.gathered(early) @ seen[1], count) + late @ values
            outputs.append(output.reshape(count, *query.shape[1:]))
        return torch.cat(outputs)

    def get_seq_length(self) -> int:
        """Return how many positions lie before the front."""
        return self.front.position

    def _begun(self) -> Iterator[tuple[Block, int, KeyValues, KeyValues]]:
        """Yield the blocks that have begun, each with its number of active rows."""
        for block, shared, own in self.blocks:
            if block.start < self.front.rows:
                yield block, min(self.front.rows - block.start, len(block.texts)), shared, own

    def _whole_rows(self) -> tuple[Tensor, Tensor]:
        parts = []
        for block, rows, shared, own in self._begun():
            upto = self.front.position - block.first + 1
            parts.append(
                [
                    torch.cat([early[block.place[:rows]], late[:rows, :, :upto]], 2)
                    for early, late in zip(shared, own, strict=True)
                ]
            )
        keys, values = zip(*parts, strict=True)
        return torch.cat(keys), torch.cat(values)


def supported(model: Any) -> bool:
    """Return whether a model's attention can be reached: by transformers' interface, or GPT-Neo's."""
    owner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kinds = set(getattr(owner.config, "layer_types", None) or ())
    return bool(_neo_layers(owner)) or (
        getattr(owner, "_supports_attention_backend", False)
        and kinds <= {"full_attention", "sliding_attention"}
    )


@contextmanager
def attending(model: Any, front: Front) -> Iterator[None]:
    """Let a supported model's attention read the layers of a chunk.

    Raises:
        UnsupportedAttention: in the first forward pass, where attention is more than this.
    """
    owner = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = _neo_layers(owner)
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(patch.object(layer, "_attn", partial(_neo_attention, front, layer)))
        if not layers:
            AttentionInterface.register(_NAME, partial(_attention, front))
            before = owner.config._attn_implementation
            owner.config._attn_implementation = _NAME
            stack.callback(setattr, owner.config, "_attn_implementation", before)
        yield


def _neo_layers(model: Any) -> list[GPTNeoSelfAttention]:
    return [module for module in model.modules() if type(module) is GPTNeoSelfAttention]


def _neo_attention(
    front: Front, layer: GPTNeoSelfAttention, query: Tensor, *_: Any
) -> tuple[Tensor, None]:
    window = layer.config.window_size if layer.attention_type == "local" else None
    return _written(front).attend(query, 1.0, window, torch.float32), None


def _attention(
    front: Front,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    layer = _written(front)
    more = {name for name, value in others.items() if value is not None} - _HARMLESS
    if attention_mask is not None or scaling is None or more:
        raise UnsupportedAttention(f"{type(module).__name__} asks for {', '.join(sorted(more))}")
    return layer.attend(query, scaling, sliding_window, query.dtype).transpose(1, 2), None


def _written(front: Front) -> SharedLayer:
    layer, front.layer = front.layer, None
    if layer is None:
        raise RuntimeError("attention was asked for before its layer was written")
    return layer


def _shared(of_texts: KeyValues, block: Block) -> KeyValues:
    keys, values = (part[:, :, : block.first].index_select(0, block.used) for part in of_texts)
    return keys, values


def _own(of_texts: KeyValues, block: Block, width: int) -> KeyValues:
    def begun(part: Tensor) -> Tensor:
        _, heads, _, size = part.shape
        store = part.new_empty(len(block.texts), heads, width - block.first, size)
        known = part[:, :, block.first : block.last].index_select(0, block.texts)
        store[:, :, : block.last - block.first] = known
        return store

    return begun(of_texts[0]), begun(of_texts[1])


def _product(left: Tensor, right: Tensor) -> Tensor:
    return left @ right.to(left.dtype)
