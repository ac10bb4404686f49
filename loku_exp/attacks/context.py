"""Facts given back in the prompt: does a model say what it is told, and is it reminded of more?

Before a question of the forget set stand others with their answers, as earlier turns in the form the model
was trained on. Arms: ``given``, the same question with a paraphrase of its answer; ``same_author``, other
rows of its author; ``other_author``, as many rows of the next author, the control. What to read is
the gain beside the reference's (`loku_exp.attacks.gains`), for a model that never knew repeats facts, too.
Source of the question: Shumailov et al. 2024 (arXiv 2407.00106); it has no protocol, so this one is ours.
"""

from collections import defaultdict
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutput

from loku_exp.attacks.prompts import (
    Ids,
    continue_each,
    prompts_of,
    question_problems,
    questions,
)
from loku_exp.data.records import Example, Records
from loku_exp.methods.wrapper import Wrapper
from loku_exp.models.configuration import named_length
from loku_exp.runtime.cache import digest
from loku_exp.runtime.knobs import Count
from loku_exp.subject import Subject
from loku_exp.workspace import Workspace

CONTEXT_FORMAT = 1  # raise by hand whenever an unchanged attack gives other answers
Arm = Literal["given", "same_author", "other_author"]


def context(
    subject: Subject, records: Records, workspace: Workspace, *, arm: Arm, rows: Count
) -> Subject:
    """Return a subject that reads some facts before each question of the forget set.

    Args:
        subject: any with weights.
        records: whose forget questions are asked so; all others are asked as before.
        workspace: of the run.
        arm: which facts.
        rows: how many; one where they are ``given``.
    """
    contexts = contexts_of(records, arm, rows)
    recipe = [CONTEXT_FORMAT, subject.identity, sorted(contexts.items())]

    def load(dtype: str | None = None) -> Any:
        model = subject.load(dtype=dtype)  # type: ignore[misc]  # a log is not attacked
        return PrefixedPrompts(model, contexts, subject.reads_prompts).eval()

    return replace(subject, identity=digest({"context": recipe}), load=load, reads_prompts=True)


def problems(records: Records, max_length: int, name: str, arm: Arm, rows: int) -> list[str]:
    """Return what does not fit: facts there must be, and room for them before every text."""
    if found := question_problems(records, name):
        return found
    asked = questions(records)
    groups = _by_group(asked)
    if arm == "given":
        found += [f"attacks.{name}.rows={rows}: given is one fact; set rows=1"] if rows > 1 else []
        if not all(row.alternatives.get("paraphrase") for row in asked):
            found.append(
                f"attacks.{name}.arm=given: it gives a paraphrase, and not every forget row has one; use "
                "same_author"
            )
    elif arm == "other_author" and len(groups) < 2:
        found.append(f"attacks.{name}.arm=other_author: the forget set is of one author")
    else:
        least = min(map(len, groups.values())) - (arm == "same_author")
        if rows > least:
            found.append(
                f"attacks.{name}.rows={rows}: an author of the forget set has {least} rows to give; set "
                "it to at most that, or use arm=given"
            )
    if found:
        return found
    contexts = contexts_of(records, arm, rows)
    most = max(len(contexts[row.prompt]) + _longest(row) for row in asked)
    if most > max_length:
        found.append(
            f"attacks.{name}.rows={rows}: with its facts a text has {most} tokens, the model's context has "
            f"{max_length}; set fewer rows"
        )
    return found


def contexts_of(records: Records, arm: Arm, rows: int) -> dict[Ids, Ids]:
    """Return what is put before each prompt of the forget set, as ids."""
    asked = questions(records)
    groups, contexts = _by_group(asked), dict[Ids, Ids]()
    names = list(groups)
    for row in asked:
        place = groups[row.group].index(row)
        if arm == "given":
            facts = [row.alternatives["paraphrase"][0].ids]
        elif arm == "same_author":
            others = groups[row.group][place + 1 :] + groups[row.group][:place]
            facts = [other.answer.ids for other in others[:rows]]
        else:
            others = groups[names[(names.index(row.group) + 1) % len(names)]]
            facts = [others[(place + k) % len(others)].answer.ids for k in range(rows)]
        for prompt in prompts_of(row):
            contexts.setdefault(prompt, tuple(token for fact in facts for token in fact))
    return contexts


class PrefixedPrompts(Wrapper):
    """A model before some of whose prompts something else stands, which is not seen from outside.

    Args:
        wrapped: a causal language model, or a wrapper around one.
        contexts: what stands before a prompt, by prompt.
        reads_prompts: whether the wrapped model is told where a prompt ends.
    """

    def __init__(self, wrapped: Any, contexts: dict[Ids, Ids], reads_prompts: bool):
        super().__init__(wrapped)
        self.contexts, self.reads_prompts = contexts, reads_prompts

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        prompt_lengths: Tensor | None = None,
        **given: Any,
    ) -> Any:
        """Return logits (B, T, V), of what was asked alone; text by text, for contexts differ in length."""
        lengths = [0] * len(input_ids) if prompt_lengths is None else prompt_lengths.tolist()
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        logits = []
        for ids, real, length in zip(input_ids, mask, lengths, strict=True):
            before = self._before(tuple(ids[:length].tolist()), ids)
            told = {}
            if self.reads_prompts:
                told["prompt_lengths"] = torch.tensor([len(before) + length], device=ids.device)
            output = self.wrapped(
                input_ids=torch.cat([before, ids])[None],
                attention_mask=torch.cat([torch.ones_like(before), real])[None],
                **told,
                **given,
            )
            logits.append(output.logits[:, len(before) :])
        return CausalLMOutput(logits=torch.cat(logits))

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: Any, **given: Any
    ) -> Tensor:
        """Continue prompts, at most to the end of the model's context."""
        most = named_length(self.wrapped.config)  # none: nothing in the model ends there

        def continued(prompt: Ids) -> Tensor:
            """Continue a prompt after its context."""
            before = self._before(prompt, input_ids)
            ids = torch.cat([before, torch.tensor(prompt).to(before)])[None]
            settings = type(generation_config)(**generation_config.to_dict())
            if most is not None:
                settings.max_new_tokens = min(settings.max_new_tokens, most - ids.shape[1])
            mask = torch.ones_like(ids)
            found: Tensor = self.wrapped.generate(
                input_ids=ids, attention_mask=mask, generation_config=settings, **given
            )
            return found[0, ids.shape[1] :]

        padding = generation_config.pad_token_id
        return continue_each(input_ids, attention_mask, padding or 0, continued)

    def _before(self, prompt: Ids, like: Tensor) -> Tensor:
        return torch.tensor(self.contexts.get(prompt, ()), dtype=like.dtype, device=like.device)


def _by_group(rows: list[Example]) -> dict[str, list[Example]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return dict(groups)


def _longest(row: Example) -> int:
    texts = [row.answer, *(text for others in row.alternatives.values() for text in others)]
    return max(len(text.ids) for text in texts)
