"""lm-eval's own model of text, with the texts of all tasks read as every room here reads them."""

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.data.tokens import plain_ids
from loku_exp.errors import DataError

SHOWN = 40  # characters of a context in a message


class TextLM(HFLM):
    """`HFLM` without ids that a tokenizer adds after a text, as some do EOS; `options` are its own."""

    def __init__(self, **options: Any):
        super().__init__(backend="causal", softmax_dtype="float32", **options)
        with_specials: list[int] = self.tokenizer("a").input_ids
        self._added = with_specials[len(plain_ids(self.tokenizer, "a")) :]

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **options: Any,
    ) -> list[int]:
        """Return the ids of a text; see `HFLM`."""
        ids: list[int] = super().tok_encode(string, add_special_tokens, **options)
        count = len(self._added)
        if count and add_special_tokens is not False and ids[-count:] == self._added:
            ids = ids[:-count]
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self, strings: list[str], *arguments: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids of texts, padded on the left, and their mask; see `HFLM`."""
        ids, mask = super().tok_batch_encode(strings, *arguments, **options)
        count = len(self._added)
        if count and bool((ids[:, -count:] == torch.tensor(self._added)).all()):
            return ids[:, :-count], mask[:, :-count]
        return ids, mask

    def labelled_text(self, context: str, continuation: str) -> Sequence:
        """Return both texts, tokenised together as lm-eval does; the continuation is labelled.

        Spaces at the context's end belong to the continuation. Before a continuation without a context
        comes the token that begins texts.

        Raises:
            DataError: the continuation is empty, or does not begin with a token of its own.
        """
        if not continuation:
            raise DataError(
                f"there is nothing to score after {context[-SHOWN:]!r}: no continuation"
            )
        text, kept = context + continuation, context.rstrip()
        if kept:
            before, together = self.tok_encode(kept), self.tok_encode(text)
        else:
            before = [self.prefix_token_id]
            together = self.tok_encode(text, add_special_tokens=False)
            together = together if together[:1] == before else before + together
        count = len(before)
        if not before or len(together) == count or together[:count] != before:
            raise DataError(
                f"the continuation {continuation!r} does not begin with a token of its own after "
                f"{context[-SHOWN:]!r}: this tokenizer merges the two; put a space or a line break "
                "between them"
            )
        return self.labelled_ids(before, together[count:])

    def labelled_ids(self, context: list[int], continuation: list[int]) -> Sequence:
        """Return both as one text, contexts too long for the model cut from the left.

        Raises:
            DataError: the continuation alone is longer than the model's context.
        """
        if len(continuation) > self.max_length:
            raise DataError(
                f"a continuation of {len(continuation)} tokens exceeds the model's context of "
                f"{self.max_length}"
            )
        ids = (*context, *continuation)
        labels = (IGNORED,) * len(context) + tuple(continuation)
        kept = slice(-self.max_length - 1, None)  # the last token is predicted, never read
        return Sequence(ids[kept], labels[kept])
