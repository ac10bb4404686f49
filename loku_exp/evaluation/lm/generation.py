"""Greedy continuations of prompts by transformers' own generation, told everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from loku_exp.evaluation.lm.aligned_cache import TAKES_NO_CACHE


@torch.no_grad()
def continued(
    model: Any,
    prompts: list[tuple[int, ...]],
    budgets: list[int],
    *,
    end_of_text: int | None,
    padding: int | None,
    cached: bool = True,
) -> list[list[int]]:
    """Continue a batch of prompts greedily; those of one length at a time.

    So none is padded: a model that keeps a state may read what is masked before a text, as RWKV does.

    Args:
        model: a causal language model in evaluation mode.
        prompts: ids, at least one each.
        budgets: tokens each is continued by at most.
        end_of_text: id before which a continuation ends; None: it goes on.
        padding: any id; it stands behind a continuation that has ended.
        cached: whether a step goes on from the cache of the one before; see `goes_on`.
    """
    found: list[list[int]] = [[] for _ in prompts]
    wanted = [i for i, budget in enumerate(budgets) if budget]
    for length in sorted({len(prompts[i]) for i in wanted}):
        alike = [i for i in wanted if len(prompts[i]) == length]
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(budgets[i] for i in alike),
            eos_token_id=end_of_text,
            pad_token_id=padding,
            use_cache=cached,
        )
        ids = torch.tensor([prompts[i] for i in alike], device=model.device)
        with no_habits(model):
            generated = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )[:, length:].tolist()
        for i, tokens in zip(alike, generated, strict=True):
            new = tokens[: budgets[i]]
            found[i] = new[: new.index(end_of_text)] if end_of_text in new else new
    return found


def goes_on(model: Any, vocabulary: int) -> bool:
    """Return whether texts go on from a model's own cache as they do without one.

    Not so with transformers 5.23: several texts of an RWKV get each other's state, and of a model of linear
    attention alone the cache cannot say how long it is.

    Args:
        model: a causal language model in evaluation mode.
        vocabulary: how many ids there are to ask with.
    """
    prompts = [tuple((7 * row + 5 * t) % vocabulary for t in range(6)) for row in range(3)]
    ask = partial(continued, model, prompts, [8] * 3, end_of_text=None, padding=0)
    try:
        return ask() == ask(cached=False)
    except torch.OutOfMemoryError:
        raise
    except TAKES_NO_CACHE:
        return False


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
