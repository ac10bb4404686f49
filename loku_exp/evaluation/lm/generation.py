"""Greedy continuations of prompts by transformers' own generation, told everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig


@torch.no_grad()
def continued(
    model: Any,
    prompts: list[tuple[int, ...]],
    budgets: list[int],
    *,
    end_of_text: int | None,
    padding: int | None,
) -> list[list[int]]:
    """Continue a batch of prompts greedily.

    Args:
        model: a causal language model in evaluation mode.
        prompts: ids, at least one each.
        budgets: tokens each is continued by at most.
        end_of_text: id before which a continuation ends; None: it goes on.
        padding: any id; it is masked.
    """
    if not any(budgets):
        return [[] for _ in prompts]
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(budgets),
        eos_token_id=end_of_text,
        pad_token_id=padding,
    )
    with no_habits(model):
        generated = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
        )[:, width:].tolist()
    cut = [new[:budget] for new, budget in zip(generated, budgets, strict=True)]
    return [new[: new.index(end_of_text)] if end_of_text in new else new for new in cut]


@contextmanager
def no_habits(model: Any) -> Iterator[None]:
    """Hide the generation settings that came with a model, and with what it is wrapped around.

    `generate` takes from them whatever it is not told: end-of-text ids that stop where nothing should,
    penalties that make greedy decoding something else.
    """
    owners = [part for part in model.modules() if "generation_config" in vars(part)]
    own = [part.generation_config for part in owners]
    for part in owners:
        part.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for part, settings in zip(owners, own, strict=True):
            part.generation_config = settings
