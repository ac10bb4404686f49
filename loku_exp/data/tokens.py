"""Text to token ids, as every room does it: nothing comes after the text but what we put there."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the configuration is checked before anything heavy is imported
    from transformers import PreTrainedTokenizerBase


def plain_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the ids of a text without special tokens that the tokenizer adds after it.

    Those it adds before the text stay, as Llama-2's BOS. A text that ends in the name of a special token
    keeps it: only what the tokenizer itself adds is taken off. So a prompt never ends in EOS, and an
    answer has one EOS, the one that is put there.

    Args:
        tokenizer: of transformers, fast or slow.
        text: may be empty.
    """
    encoded = tokenizer(text, return_special_tokens_mask=True)
    added = encoded["special_tokens_mask"]
    if all(added):  # nothing in between says which of them come after a text
        added = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    after = next((count for count, special in enumerate(reversed(added)) if not special), 0)
    ids: list[int] = encoded["input_ids"]
    return ids[: len(ids) - after]
