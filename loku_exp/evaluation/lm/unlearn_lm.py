"""A language model for lm-eval that knows token ids: `UnlearnLM`.

lm-eval hands every request type to the method of that name, so a new request type is a method. Stock
tasks run on the same object in the same call.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.evaluation.lm.answer_tree import Tree, hidden_states, obeys, plant, predictions
from loku_exp.evaluation.lm.responses import Responses, TokenScores
from loku_exp.evaluation.lm.wavefront import DECODE_BYTES, greedy_continuations
from loku_exp.evaluation.tdec.metrics import Greedy, hits, wanted
from loku_exp.models.head import apply_term

CPU_BATCH_TOKENS = 1024  # of texts that are only scored: what stays in a CPU's caches is faster


class UnlearnLM(HFLM):
    """A model in memory, with or without adapter, for tasks over token ids.

    Args:
        model: any causal language model of transformers or peft; build one `UnlearnLM` an evaluation.
        tokenizer: its tokenizer.
        batch_tokens: padded tokens per forward pass.
        max_length: the model's context.
        decode_bytes: key-value cache that continuations decoded together may take.
        stop_at_eos: whether generation ends at the tokenizer's end-of-text token.
        responses: where answers are kept.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int,
        max_length: int,
        decode_bytes: int = DECODE_BYTES,
        stop_at_eos: bool = True,
        responses: Responses | None = None,
    ):
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            backend="causal",
            batch_size=max(1, batch_tokens // max_length),
            max_length=max_length,
            softmax_dtype="float32",
        )
        self.batch_tokens = batch_tokens
        self.decode_bytes = decode_bytes
        self.stop_at_eos = stop_at_eos
        self.responses = responses or Responses()
        self._obeys, self._widest_read = True, 0

    # -- request types of this package: arguments are (text for people, ids..., options...) ----------

    def token_scores(self, requests: list[Instance]) -> list[TokenScores]:
        """Score labelled texts; arguments: (question, `Sequence`)."""
        answers = self.responses.answer("token_scores", requests, self._token_scores)
        return [TokenScores(*answer) for answer in answers]

    def generate_ids(self, requests: list[Instance]) -> list[list[int]]:
        """Continue prompts greedily; arguments: (question, prompt ids, max tokens in total)."""
        return self.responses.answer("generate_ids", requests, self._generate_ids)

    def greedy_suffixes(self, requests: list[Instance]) -> list[Greedy]:
        """Say what follows every prefix of a text; arguments: (text, ids, n[, shown]).

        n is the smallest n-gram that continuations are needed for; 0: none, only the argmax. `shown`
        is a prefix length whose continuation is needed in any case. A text that was read for this is
        scored as well, so a perplexity over it costs nothing.
        """
        answers = self.responses.answer("greedy_suffixes", requests, self._greedy_suffixes)
        for request, answer in zip(requests, answers, strict=True):
            ids, (logprobs, argmax, _) = request.args[1], answer
            scores = TokenScores(logprobs, hits(ids, argmax))
            self.responses.remember("token_scores", (Sequence(ids, ids),), scores)
        return [Greedy(*answer) for answer in answers]

    # -- stock request types, remembered likewise ------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """See `HFLM`."""
        compute = partial(super().loglikelihood, disable_tqdm=not sys.stderr.isatty())
        return self.responses.answer("loglikelihood", requests, compute)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[Any]:
        """See `HFLM`."""
        compute = partial(super().loglikelihood_rolling, disable_tqdm=not sys.stderr.isatty())
        return self.responses.answer("loglikelihood_rolling", requests, compute)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """See `HFLM`."""
        compute = partial(super().generate_until, disable_tqdm=not sys.stderr.isatty())
        return self.responses.answer("generate_until", requests, compute)

    # -- computing -------------------------------------------------------------------------------

    def _token_scores(self, requests: list[Instance]) -> list[TokenScores]:
        return self._score([request.args[1] for request in requests])

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation in nats, and whether it is the greedy one.

        As `HFLM` computes it, but only continuation tokens go through the output head, and batches
        have a budget of tokens. Contexts too long for the model are cut from the left.

        Args:
            requests: (texts, context ids, continuation ids); neither is empty.
            disable_tqdm: unused.
            override_bs: unused.

        Raises:
            ValueError: a continuation alone is longer than the model's context.
        """
        sequences = []
        for _, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise ValueError(
                    f"a continuation of {len(continuation)} tokens exceeds the context of {self.max_length}"
                )
            ids = (*context, *continuation)
            labels = (IGNORED,) * len(context) + tuple(continuation)
            kept = slice(-self.max_length - 1, None)  # the last token is predicted, never read
            sequences.append(Sequence(ids[kept], labels[kept]))
        scores = self._score(sequences)
        return [(sum(score.logprobs), all(score.greedy)) for score in scores]

    @torch.no_grad()
    def _score(self, sequences: list[Sequence]) -> list[TokenScores]:
        """Score the labelled tokens of texts that fit, or are one token longer than, the context."""
        results: list[TokenScores | None] = [None] * len(sequences)
        trees = plant(sequences, self.max_length, share=True)
        masked = self._reads_trees(trees)
        if not masked:
            trees = plant(sequences, self.max_length, share=False)
        on_cpu = self.device.type == "cpu"
        most = min(CPU_BATCH_TOKENS, self.batch_tokens) if on_cpu else self.batch_tokens
        for indices in self._batches([tree.width for tree in trees], "scoring", most=most):
            batch = [trees[i] for i in indices]
            places, counts = predictions(batch, sequences)
            rows, columns, labels = places.to(self.device).T
            hidden = hidden_states(self.model, batch, masked)[rows, columns]
            scores = apply_term(
                _logprob_and_greedy, hidden, labels, self.model.get_output_embeddings()
            ).cpu()
            texts = [index for tree in batch for index, _ in tree.texts]
            for index, part in zip(texts, scores.split(counts), strict=True):
                logprobs, greedy = part.T.tolist()
                results[index] = TokenScores(logprobs, [value > 0 for value in greedy])
        return results  # type: ignore[return-value]

    def _reads_trees(self, trees: list[Tree]) -> bool:
        """Return whether the model reads these trees rightly; asked again where they are wider."""
        widest = max((tree.width for tree in trees if len(tree.branches) > 1), default=0)
        if widest > self._widest_read and self._obeys:
            self._widest_read, self._obeys = widest, obeys(self.model, widest)
        return self._obeys and widest > 0

    @torch.no_grad()
    def _generate_ids(self, requests: list[Instance]) -> list[list[int]]:
        results: list[list[int]] = [[] for _ in requests]
        totals = [request.args[2] for request in requests]
        lengths = [len(request.args[1]) for request in requests]
        eos = self.tokenizer.eos_token_id if self.stop_at_eos else None
        for indices in self._batches(lengths, "generating", padded_to=totals):
            width = max(lengths[i] for i in indices)
            ids = torch.zeros(len(indices), width, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for row, index in enumerate(indices):
                ids[row, width - lengths[index] :] = torch.tensor(requests[index].args[1])
                mask[row, width - lengths[index] :] = 1
            budgets = [max(0, totals[i] - lengths[i]) for i in indices]
            if not any(budgets):
                continue
            wanted_config = GenerationConfig(
                do_sample=False,
                max_new_tokens=max(budgets),
                eos_token_id=eos,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            with _no_habits(self.model):
                generated = self.model.generate(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    generation_config=wanted_config,
                )[:, width:].tolist()
            for index, budget, new in zip(indices, budgets, generated, strict=True):
                new = new[:budget]
                results[index] = new[: new.index(eos)] if eos in new else new
        return results

    def _greedy_suffixes(self, requests: list[Instance]) -> list[Greedy]:
        results: list[Greedy | None] = [None] * len(requests)
        for options in sorted({request.args[2:] for request in requests}):
            mine = [i for i, request in enumerate(requests) if request.args[2:] == options]
            texts = [requests[i].args[1] for i in mine]

            def prefixes(
                ids: tuple[int, ...], argmax: list[int], options: tuple[int, ...] = options
            ) -> list[int]:
                return wanted(ids, argmax, *options) if options[0] else []

            for batch in self._batches([len(ids) for ids in texts], "reading"):
                answers = greedy_continuations(
                    self.model, [texts[i] for i in batch], prefixes, self.decode_bytes
                )
                for place, answer in zip(batch, answers, strict=True):
                    results[mine[place]] = answer
        return results  # type: ignore[return-value]

    def _batches(
        self,
        lengths: list[int],
        verb: str,
        *,
        padded_to: list[int] | None = None,
        most: int | None = None,
    ) -> Iterator[list[int]]:
        """Yield indices in batches of similar length, longest first, within `most` padded tokens."""
        budget = most or self.batch_tokens
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        with tqdm(total=len(order), desc=verb, unit="text", leave=False, disable=None) as bar:
            while order:
                width = padded_to[order[0]] if padded_to else lengths[order[0]]
                size = max(1, budget // width)
                yield order[:size]
                bar.update(len(order[:size]))
                order = order[size:]


@contextmanager
def _no_habits(model: Any) -> Iterator[None]:
    """Hide the generation settings that came with a model.

    `generate` takes from them whatever it is not told: end-of-text ids that stop where nothing should,
    penalties that make greedy decoding something else.
    """
    owner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, owner.generation_config = owner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        owner.generation_config = own


def _logprob_and_greedy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (n, 2): log-probability of the label, and 1 where it is the argmax."""
    logprobs = logits.log_softmax(-1).gather(1, labels[:, None])
    return torch.cat([logprobs, (logits.argmax(-1) == labels)[:, None].to(logprobs)], dim=1)
