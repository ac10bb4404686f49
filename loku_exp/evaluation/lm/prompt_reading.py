"""Asking a model whose forward pass depends on where the prompt ends: plainly, one text at a time.

What is labelled is the answer, and what comes before it the prompt; its length goes with every call. A
text to extract has no answer: each of its prefixes is a prompt of its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm.answer_tree import Tree, unlabelled
from loku_exp.evaluation.lm.wavefront import logprob_and_argmax
from loku_exp.evaluation.tdec.metrics import Greedy
from loku_exp.models.head import apply_term, hidden_before_head


def alone(sequences: list[Sequence]) -> list[Tree]:
    """Return a tree for each text, so that nothing is shared between two prompts."""
    trees = []
    for index, sequence in enumerate(sequences):
        trees.append(Tree(sequence.ids[:-1]))
        trees[-1].add(index, ())
    return trees


def boundary(tree: Tree, sequences: list[Sequence], device: torch.device) -> dict[str, Tensor]:
    """Return the argument that tells a model where the prompt of a lone text ends, (1,) tokens."""
    ((index, _),) = tree.texts
    return {"prompt_lengths": torch.tensor([unlabelled(sequences[index])], device=device)}


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
        prompt = torch.tensor(ids[:length], device=model.device)[None]
        batch = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
        end = torch.tensor([length], device=model.device)
        hidden = hidden_before_head(model, batch, prompt_lengths=end)[:, -1]
        label = torch.tensor([ids[length]], device=model.device)
        ((logprob, guess),) = apply_term(
            logprob_and_argmax, hidden, label, model.get_output_embeddings()
        ).tolist()
        logprobs.append(logprob)
        argmax.append(int(guess))
    decoded = [
        [t, *inference.continued([ids[:t]], [len(ids) - t], None)[0]] for t in wanted(ids, argmax)
    ]
    return Greedy(logprobs, argmax, decoded)
