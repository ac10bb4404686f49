"""Leakage under sampling: what a greedy answer hides, one of k drawn ones may tell.

Each question of the forget set is answered k times at a temperature, and the answer nearest to the true one
counts; everything else is asked as before. So ROUGE of the forget set is the expected best of k. Source:
leak@k (arXiv 2511.04934), which counts rows with a leak among n > k draws; ours draws k, needs no judge and
keeps the metric. The draws of a prompt follow from its tokens and the run's seed alone.
"""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loku_exp.attacks.prompts import Ids, continue_each, question_problems, questions
from loku_exp.data.records import Records
from loku_exp.evaluation.rouge import rouge_recall
from loku_exp.methods.wrapper import Wrapper
from loku_exp.runtime.cache import digest
from loku_exp.runtime.knobs import Count, Positive
from loku_exp.runtime.seeds import derive
from loku_exp.subject import Subject
from loku_exp.workspace import Workspace

LEAK_FORMAT = 2  # raise by hand whenever an unchanged attack gives other answers


def leak(
    subject: Subject,
    records: Records,
    workspace: Workspace,
    *,
    samples: Count,
    temperature: Positive,
) -> Subject:
    """Return a subject that gives the best of several drawn answers to a question of the forget set.

    Args:
        subject: any with weights.
        records: whose forget questions are answered so, with their true answers.
        workspace: of the run.
        samples: k, answers drawn to a question.
        temperature: logits are divided by it.
    """
    answers: dict[Ids, list[str]] = {}
    for row in questions(records):
        answers.setdefault(row.prompt, []).append(row.reference)
    recipe = [LEAK_FORMAT, subject.identity, sorted(answers.items()), samples, temperature]
    recipe += [workspace.seed, workspace.machine.device.partition(":")[0]]

    def load(dtype: str | None = None) -> Any:
        model = subject.load(dtype=dtype)  # type: ignore[misc]  # a log is not attacked
        draw = {"num_return_sequences": samples, "temperature": temperature}
        decode = partial(workspace.tokenizer.decode, skip_special_tokens=True)
        sampled = BestOfSamples(model, answers, draw, decode, workspace.seed)
        sampled.reads_prompts = subject.reads_prompts
        return sampled.eval()

    return replace(subject, identity=digest({"leak": recipe}), load=load, reads_prompts=True)


def problems(records: Records, name: str) -> list[str]:
    """Return what does not fit: there must be questions, whose true answers are known."""
    return question_problems(records, name)


class BestOfSamples(Wrapper):
    """A model that answers some prompts several times, and keeps the answer nearest to the true one.

    Args:
        wrapped: a causal language model, or a wrapper around one.
        answers: true answers by prompt.
        draw: how many, and at which temperature, as `generate` takes them.
        decode: from ids to text.
        seed: of the draws.

    Attributes:
        reads_prompts: whether the wrapped model is told where a prompt ends.
    """

    reads_prompts = False

    def __init__(
        self,
        wrapped: Any,
        answers: dict[Ids, list[str]],
        draw: dict[str, Any],
        decode: Any,
        seed: int,
    ):
        super().__init__(wrapped)
        self.answers, self.draw, self.decode, self.seed = answers, draw, decode, seed

    def forward(self, input_ids: Tensor, prompt_lengths: Tensor | None = None, **given: Any) -> Any:
        """Run the wrapped model as it is."""
        told = {"prompt_lengths": prompt_lengths} if self.reads_prompts else {}
        return self.wrapped(input_ids=input_ids, **told, **given)

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: Any, **given: Any
    ) -> Tensor:
        """Continue prompts; see `transformers.GenerationMixin.generate`."""
        end = generation_config.eos_token_id

        def continued(prompt: Ids) -> Tensor:
            """Continue a prompt: one of the attacked ones by sampling, from a seed of its own."""
            ids = torch.tensor([prompt], device=input_ids.device)
            settings = generation_config
            if prompt in self.answers:
                settings = copy.deepcopy(generation_config)
                settings.update(do_sample=True, top_k=0, top_p=1.0, **self.draw)
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(derive(self.seed, "leak", ",".join(map(str, prompt))))
                drawn: Tensor = self.wrapped.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=settings,
                    **given,
                )[:, len(prompt) :]
            recalls = [self._recall(prompt, row.tolist(), end) for row in drawn]
            return drawn[recalls.index(max(recalls))]

        padding = generation_config.pad_token_id
        return continue_each(input_ids, attention_mask, padding or 0, continued)

    def _recall(self, prompt: Ids, ids: list[int], end: int | None) -> float:
        """Return how much of a true answer a drawn one has, which ends where it ends."""
        text = self.decode(ids[: ids.index(end)] if end in ids else ids)
        return max((rouge_recall(true, text) for true in self.answers.get(prompt, [])), default=0)
