"""Try a loss on two rows of a tiny model before anything expensive: is it a loss, and has it a gradient?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.losses.scores import LossTerms, Scores

ROWS, TOKENS = 2, 24


def problems(
    name: str, loss: Callable[..., Any], texts: dict[str, list[Sequence]], vocabulary: int
) -> list[str]:
    """Return what is wrong with a loss, a line each.

    Args:
        name: of the loss, for messages.
        loss: with its knobs; takes one `Scores` for each name in `texts`.
        texts: the first rows of each batch it wants.
        vocabulary: tokens of the tokenizer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=2,
            num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=2 * TOKENS,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    model.requires_grad_(False)
    model.model.layers.requires_grad_(True)
    scores = {
        batch: Scores(model, pad([_short(row) for row in rows[:ROWS]]), as_target=torch.no_grad)
        for batch, rows in texts.items()
    }
    try:
        terms = loss(**scores)
    except Exception as error:  # whatever a function of a user's own raises
        where = _line_of(error)
        said = " ".join(str(error).split())[:300]
        return [f"loss={name}: it fails on two rows ({type(error).__name__}: {said}{where})"]
    return _terms_problems(name, terms)


def _terms_problems(name: str, terms: Any) -> list[str]:
    if not isinstance(terms, LossTerms):
        return [
            f"loss={name}: it returns {type(terms).__name__}, a loss returns LossTerms; write "
            "LossTerms(value) of loku_exp.losses.scores"
        ]
    found = []
    for term, value in terms.by_name().items():
        if not isinstance(value, Tensor) or value.dim():
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            found.append(
                f"loss={name}: its term '{term}' is {shape}, each term is one number; take a mean"
            )
        elif not torch.isfinite(value):
            found.append(f"loss={name}: its term '{term}' is {value.item()} on two rows")
    if not found and not terms.total.requires_grad:
        found.append(
            f"loss={name}: its value has no gradient; compute it from the scores it is given, without "
            "detach, item or torch.no_grad"
        )
    return found


def _short(row: Sequence) -> Sequence:
    """Return the end of a text, so that its labels are in it."""
    start = max(0, len(row.ids) - TOKENS)
    return Sequence(row.ids[start:], row.labels[start:])


def _line_of(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f", {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}" if trace else ""
