"""What attacks on prompts share: rows that ask, and a wrapper's way through generation."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loku_exp.data.records import Example, Records
from loku_exp.evaluation.lm.answer_tree import unlabelled

Ids = tuple[int, ...]


def questions(records: Records) -> list[Example]:
    """Return the evaluated rows of the forget set that are a question with an answer."""
    rows = records.evaluation.get("forget", records.forget)
    return [row for row in rows if row.reference and unlabelled(row.answer)]


def question_problems(records: Records, name: str) -> list[str]:
    """Return that there are no such rows, where there are none."""
    if questions(records):
        return []
    return [
        f"attacks={name}: it needs a forget set of questions with answers, and this dataset has texts; "
        "leave it out"
    ]


def prompts_of(row: Example) -> set[Ids]:
    """Return what stands before the labels of a row's texts; some tokenizers join an answer's beginning."""
    texts = [row.answer, *(text for others in row.alternatives.values() for text in others)]
    return {row.prompt} | {text.ids[: unlabelled(text)] for text in texts}


def continue_each(
    input_ids: Tensor, attention_mask: Tensor, padding: int, continued: Callable[[Ids], Tensor]
) -> Tensor:
    """Return prompts with what each is continued by, as `generate` does.

    Args:
        input_ids: (B, T), padded on the left.
        attention_mask: (B, T).
        padding: id behind what is shorter.
        continued: from a prompt to new ids (n,).
    """
    rows = zip(input_ids, attention_mask.bool(), strict=True)
    new = [continued(tuple(ids[real].tolist())) for ids, real in rows]
    padded = pad_sequence(new, batch_first=True, padding_value=padding)
    return torch.cat([input_ids, padded.to(input_ids)], dim=1)
