"""Try a loss on two rows of a tiny model before anything expensive: is it a loss, and has it a gradient?"""

import traceback
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.losses.scores import LossTerms, Scores

ROWS, TOKENS = 2, 24


def problems(
    name: str,
    loss: Callable[..., Any],
    texts: dict[str, list[Sequence]],
    vocabulary: int,
    layers: int = 2,
    adapted: bool = False,
) -> list[str]:
    """Return what is wrong with a loss, a line each.

    Args:
        name: of the loss, for messages.
        loss: with its knobs; takes one `Scores` for each name in `texts`.
        texts: the first rows of each batch it wants.
        vocabulary: tokens of the tokenizer.
        layers: of the model it is for, whose hidden states it may ask for.
        adapted: whether an adapter is trained, whose A and B it may ask for.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _model(vocabulary, layers, adapted)
        scores = {
            batch: Scores(model, pad([_short(row) for row in rows[:ROWS]]), as_target=torch.no_grad)
            for batch, rows in texts.items()
        }
        try:
            terms = loss(**scores)
        except (Exception, SystemExit) as error:  # whatever a function of a user's own raises
            return [f"loss={name}: it fails on two rows ({_said(error)}{_line_of(error)})"]
        found = _terms_problems(name, terms)
        return found or _gradient_problems(name, terms, model)


def _model(vocabulary: int, layers: int, adapted: bool) -> nn.Module:
    """Return a narrow model; an adapter alone is trained, or its layers."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=layers,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=2 * TOKENS,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if adapted:  # B is not 0, as with FILA
        targets = ["q_proj", "v_proj"]
        return get_peft_model(
            model, LoraConfig(r=1, target_modules=targets, init_lora_weights=False)
        )
    model.requires_grad_(False)
    model.model.layers.requires_grad_(True)
    return model


def _terms_problems(name: str, terms: Any) -> list[str]:
    if not isinstance(terms, LossTerms):
        return [
            f"loss={name}: it returns {type(terms).__name__}, a loss returns LossTerms; write "
            "LossTerms(value) of loku_exp.losses.scores"
        ]
    found = [
        f"loss={name}: one of its other terms is named '{term}', which it has already; rename it"
        for term in terms.others
        if term == "forget" or (term == "retain" and terms.retain is not None)
    ]
    for term, value in terms.by_name().items():
        if not isinstance(value, Tensor) or value.dim():
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            found.append(
                f"loss={name}: its term '{term}' is {shape}, each term is one number; take a mean"
            )
        elif not torch.isfinite(value):
            found.append(f"loss={name}: its term '{term}' is {value.item()} on two rows")
        elif not value.requires_grad and value:  # a term that is left out is 0
            found.append(
                f"loss={name}: its term '{term}' has no gradient; compute it from the scores it is "
                "given, without detach, item or torch.no_grad"
            )
    if not found and not torch.isfinite(terms.total):
        found.append(f"loss={name}: its value is {terms.total.item()} on two rows; see its weights")
    return found


def _gradient_problems(name: str, terms: LossTerms, model: nn.Module) -> list[str]:
    if not terms.total.requires_grad:
        return [f"loss={name}: its value has no gradient, so nothing would be learned"]
    try:
        terms.total.backward()
    except RuntimeError as error:
        return [f"loss={name}: its gradient cannot be computed ({_said(error)})"]
    if all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()):
        return []
    return [
        f"loss={name}: its gradient is not finite on two rows though its value is; look for log(0), 0 / 0 "
        "or sqrt(0)"
    ]


def _short(row: Sequence) -> Sequence:
    """Return the end of a text, so that its labels are in it."""
    start = max(0, len(row.ids) - TOKENS)
    return Sequence(row.ids[start:], row.labels[start:])


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _line_of(error: BaseException) -> str:
    """Return the line of the loss's own file that an error comes from."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # without ours
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return f", {own[-1].filename}, line {own[-1].lineno}" if own else ""
