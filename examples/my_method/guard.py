"""A guardrail as a method of one's own: prompts near the forget questions are answered with a refusal."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from loku_exp.data.records import Records
from loku_exp.methods.prompt_flag import log_odds, score, threshold_of
from loku_exp.methods.wrapper import Wrapper
from loku_exp.subject import Outcome, Subject
from loku_exp.workspace import Workspace


class Guarded(Wrapper):
    """A model that raises the logits of a refusal where a prompt is flagged."""

    def __init__(self, wrapped: Any, flags: Any, refusal: list[int], offset: float):
        super().__init__(wrapped)
        self.flags, self.refusal, self.offset = flags, refusal, offset

    def forward(self, input_ids: Tensor, prompt_lengths: Tensor, **options: Any) -> Any:
        """Run the target; at the end of a flagged prompt the refusal's tokens come first."""
        output = self.wrapped(input_ids=input_ids, **options)
        (length,) = prompt_lengths.tolist()
        if self.flags(tuple(input_ids[0, :length].tolist())):
            for place, token in enumerate(self.refusal[: input_ids.shape[1] - length + 1]):
                output.logits[0, length - 1 + place, token] += self.offset
        return output

    def generate(self, input_ids: Tensor, **options: Any) -> Any:
        """Refuse, or continue as the target does."""
        if self.flags(tuple(input_ids[0].tolist())):
            return torch.cat([input_ids, torch.tensor([self.refusal]).to(input_ids)], dim=1)
        return self.wrapped.generate(input_ids=input_ids, **options)


def guard(
    target: Subject, records: Records, workspace: Workspace, *, offset: float = 20.0
) -> Outcome:
    """Flag what no retain prompt resembles as much; nothing is trained."""
    forget, retain = ([row.prompt for row in rows] for rows in (records.forget, records.retain))
    profile = log_odds(forget, retain, longest=3)
    limit = threshold_of([score(prompt, profile, longest=3) for prompt in retain], false_alarms=0.0)
    refusal = workspace.tokenizer(" I don't know.", add_special_tokens=False).input_ids

    def load(dtype: str | None = None) -> Guarded:
        def flags(prompt: tuple[int, ...]) -> bool:
            return score(prompt, profile, longest=3) > limit

        return Guarded(target.load(dtype=dtype), flags, refusal, offset).eval()

    return Outcome(replace(target, load=load, reads_prompts=True))
