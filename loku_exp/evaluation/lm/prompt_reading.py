"""Asking a model whose forward pass depends on where the prompt ends: plainly, one text at a time.

Its logits are taken as it gives them, so it may change them behind its output head, too. What is labelled
is the answer, and what comes before it the prompt; its length goes with every call. A text to extract has
no answer: each of its prefixes is a prompt of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm.answer_tree import Tree, unlabelled
from loku_exp.evaluation.lm.wavefront import logprob_and_argmax
from loku_exp.evaluation.tdec.metrics import Greedy


def alone(sequences: list[Sequence]) -> list[Tree]:
    """Return a tree for each text, so that nothing is shared between two prompts."""
    trees = []
    for index, sequence in enumerate(sequences):
        trees.append(Tree(sequence.ids[:-1]))
        trees[-1].add(index, ())
    return trees


def logits_of_text(model: Any, tree: Tree, sequences: list[Sequence]) -> Tensor:
    """Return the logits of a lone text, (T, V) fp32; what comes before its labels is the prompt."""
    ((index, _),) = tree.texts
    return logits(model, tree.stem, unlabelled(sequences[index]))


def logits(model: Any, ids: tuple[int, ...], prompt_length: int) -> Tensor:
    """Return the logits (T, V) in fp32 that a model gives itself, told where the prompt of a text ends."""
    text = torch.tensor(ids, device=model.device)[None]
    end = torch.tensor([prompt_length], device=model.device)
    output = model(
        input_ids=text, attention_mask=torch.ones_like(text), prompt_lengths=end, use_cache=False
    )
    found: Tensor = output.logits[0].float()
    return found


@torch.no_grad()
def suffixes(
    inference: Any, ids: tuple[int, ...], wanted: Callable[[tuple[int, ...], list[int]], list[int]]
) -> Greedy:
    """Return what follows each prefix of a text, asked with that prefix as the prompt.

    Args:
        inference: an `Inference`.
        ids: the text.
        wanted: from ids and argmax to the prefix lengths whose continuation is needed.
    """
    model = inference.model
    logprobs, argmax = [], []
    for length in range(1, len(ids)):
        last = logits(model, ids[:length], length)[-1:]
        label = torch.tensor([ids[length]], device=model.device)
        ((logprob, guess),) = logprob_and_argmax(last, label).tolist()
        logprobs.append(logprob)
        argmax.append(int(guess))
    decoded = [
        [t, *inference.continued([ids[:t]], [len(ids) - t], None)[0]] for t in wanted(ids, argmax)
    ]
    return Greedy(logprobs, argmax, decoded)
