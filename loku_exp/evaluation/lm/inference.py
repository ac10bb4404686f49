"""Answer requests about token ids by running a model, batch by batch."""

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from transformers import PreTrainedTokenizerBase

from loku_exp.data.records import Sequence
from loku_exp.errors import DataError
from loku_exp.evaluation.lm import prompt_reading
from loku_exp.evaluation.lm.answer_tree import Tree, hidden_states, obeys, plant, predictions
from loku_exp.evaluation.lm.answers import TokenScores, Wanted, everything
from loku_exp.evaluation.lm.generation import continued, goes_on
from loku_exp.evaluation.lm.text_lm import TextLM
from loku_exp.evaluation.lm.together import continued_together
from loku_exp.evaluation.lm.wavefront import greedy_continuations
from loku_exp.evaluation.tdec.metrics import wanted
from loku_exp.models.head import apply_term
from loku_exp.runtime.logs import progress

CPU_BATCH_TOKENS = 1024  # of texts that are only scored: what stays in a CPU's caches is faster
STOCK_BATCH = 64  # requests of lm-eval's own generation and rolling scores between two writes
Batch = dict[int, Any]
"""Answers by the index of their request."""


class Inference(TextLM):
    """A model in memory, with or without adapter, that answers requests batch by batch.

    Args:
        model: any causal language model of transformers or peft.
        tokenizer: its tokenizer.
        batch_tokens: padded tokens per forward pass.
        max_length: the model's context.
        stop_at_eos: whether generation ends at the tokenizer's end-of-text token.
        reads_prompts: see `loku_exp.subject.Subject`; everything goes the plain way, one text at a time.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int,
        max_length: int,
        stop_at_eos: bool = True,
        reads_prompts: bool = False,
    ):
        super().__init__(
            pretrained=model.eval(),
            tokenizer=tokenizer,
            batch_size=1 if reads_prompts else max(1, batch_tokens // max_length),
            max_length=max_length,
        )
        self.batch_tokens = batch_tokens
        self.stop_at_eos = stop_at_eos
        self.reads_prompts = reads_prompts
        self._obeys: dict[int, bool] = {}

    def batches(
        self, kind: str, requests: list[Instance], wanted: Wanted = everything
    ) -> Iterator[Batch]:
        """Yield answers to requests of one type, all different, in the batches they are computed in.

        A batch depends neither on those before it nor on what is wanted, so that an evaluation that was
        ended between two of them goes on with the same ones.

        Args:
            kind: the request type.
            requests: of that type.
            wanted: whether a request, by index, needs an answer; a batch without any is left out.
        """
        own = {
            "token_scores": self._token_scores,
            "generate_ids": self._generate_ids,
            "greedy_suffixes": self._greedy_suffixes,
            "loglikelihood": self._loglikelihood,
        }
        return (own[kind] if kind in own else partial(self._stock, kind))(requests, wanted)

    # -- the request types of this package: arguments are (text for people, ids..., options...) ------

    def _token_scores(self, requests: list[Instance], wanted: Wanted) -> Iterator[Batch]:
        for request in requests:
            if not request.args[1].num_labels:
                raise DataError(
                    f"a text without a labelled token cannot be scored: {request.args[0]!r}; its answer is "
                    "empty, or one token with its prompt"
                )
        return self._score([request.args[1] for request in requests], wanted)

    def _generate_ids(self, requests: list[Instance], wanted: Wanted) -> Iterator[Batch]:
        for request in requests:
            if not request.args[1]:
                raise DataError(f"an empty prompt cannot be continued: {request.args[0]!r}")
        totals = [request.args[2] for request in requests]
        lengths = [len(request.args[1]) for request in requests]
        end_of_text = self.tokenizer.eos_token_id if self.stop_at_eos else None
        for indices in self._grouped(lengths, "generating", wanted, padded_to=totals):
            prompts = [requests[i].args[1] for i in indices]
            budgets = [max(0, totals[i] - lengths[i]) for i in indices]
            yield dict(zip(indices, self.continued(prompts, budgets, end_of_text), strict=True))

    def continued(
        self, prompts: list[tuple[int, ...]], budgets: list[int], end_of_text: int | None
    ) -> list[list[int]]:
        """Continue a batch of prompts greedily; see `loku_exp.evaluation.lm.generation.continued`."""
        texts, end = (self.model, prompts, budgets), end_of_text
        together = None if self.reads_prompts else continued_together(*texts, end_of_text=end)
        if together is not None:
            return together
        padding = self.tokenizer.pad_token_id
        return continued(*texts, end_of_text=end, padding=padding, cached=self._goes_on)

    @cached_property
    def _goes_on(self) -> bool:
        return goes_on(self.model, len(self.tokenizer))

    def _greedy_suffixes(self, requests: list[Instance], needed: Wanted) -> Iterator[Batch]:
        for request in requests:
            if len(request.args[1]) < 2:
                raise DataError(
                    f"a text of fewer than two tokens foretells none: {request.args[0]}"
                )
        for options in sorted({request.args[2:] for request in requests}):
            mine = [i for i, request in enumerate(requests) if request.args[2:] == options]
            texts = [requests[i].args[1] for i in mine]

            def prefixes(
                ids: tuple[int, ...], argmax: list[int], options: tuple[int, ...] = options
            ) -> list[int]:
                return wanted(ids, argmax, *options) if options[0] else []

            lengths, of = [len(ids) for ids in texts], partial(_any_in, needed, [[i] for i in mine])
            for batch in self._grouped(lengths, "reading", of):
                chosen = [texts[i] for i in batch]
                if self.reads_prompts:
                    found = [prompt_reading.suffixes(self, ids, prefixes) for ids in chosen]
                else:
                    found = greedy_continuations(self.model, chosen, prefixes)
                yield {mine[place]: answer for place, answer in zip(batch, found, strict=True)}

    # -- the request types of lm-eval -----------------------------------------------------------------

    def _loglikelihood(self, requests: list[Instance], wanted: Wanted) -> Iterator[Batch]:
        """Score continuations of texts as `HFLM` does, but only continuations go through the output head.

        Raises:
            DataError: a continuation has no token of its own.
        """
        sequences = [self.labelled_text(*request.args) for request in requests]
        for batch in self._score(sequences, wanted):
            yield {i: (sum(s.logprobs), all(s.greedy)) for i, s in batch.items()}

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation in nats, and whether it is the greedy one.

        `HFLM` calls it for rolling scores.
        """
        sequences = [self.labelled_ids(context, rest) for _, context, rest in requests]
        scores = {i: score for batch in self._score(sequences) for i, score in batch.items()}
        return [(sum(scores[i].logprobs), all(scores[i].greedy)) for i in range(len(requests))]

    def _stock(self, kind: str, requests: list[Instance], wanted: Wanted) -> Iterator[Batch]:
        """Answer by `HFLM`'s own method of that name, some requests at a time."""
        with progress(len(requests), kind.replace("_", " "), "request") as bar:
            for start in range(0, len(requests), STOCK_BATCH):
                some = requests[start : start + STOCK_BATCH]
                if not any(map(wanted, range(start, start + len(some)))):
                    continue
                found = getattr(super(), kind)(some, disable_tqdm=True)
                yield dict(enumerate(found, start))
                bar.update(len(some))

    # -- scoring ----------------------------------------------------------------------------------

    @torch.no_grad()
    def _score(self, sequences: list[Sequence], wanted: Wanted = everything) -> Iterator[Batch]:
        """Score the labelled tokens of texts that fit, or are one token longer than, the context."""
        on_cpu = self.device.type == "cpu"
        most = min(CPU_BATCH_TOKENS, self.batch_tokens) if on_cpu else self.batch_tokens
        for trees, masked in self._planted(sequences):
            texts = [[index for index, _ in tree.texts] for tree in trees]
            of = partial(_any_in, wanted, texts)
            widths = [tree.width for tree in trees]
            for indices in self._grouped(widths, "scoring", of, most=most):
                yield self._scores([trees[i] for i in indices], masked, sequences)

    def _planted(self, sequences: list[Sequence]) -> list[tuple[list[Tree], bool]]:
        """Return trees that hold every text once, and whether they are read under a mask.

        That depends on a tree and the model alone, not on what else is asked.
        """
        if self.reads_prompts:
            return [(prompt_reading.alone(sequences), False)]
        trees = plant(sequences, self.max_length, share=True)
        shared = [tree for tree in trees if len(tree.branches) > 1 and self._reads(tree.width)]
        within = {index for tree in shared for index, _ in tree.texts}
        rest = [index for index in range(len(sequences)) if index not in within]
        apart = plant([sequences[index] for index in rest], self.max_length, share=False)
        for tree in apart:
            tree.texts = [(rest[place], start) for place, start in tree.texts]
        return [(shared, True), (apart, False)]

    def _reads(self, width: int) -> bool:
        """Return whether the model reads trees of a width rightly; it is asked once a power of two."""
        asked = min(self.max_length, 1 << (width - 1).bit_length())
        if asked not in self._obeys:
            self._obeys[asked] = obeys(self.model, asked)
        return self._obeys[asked]

    def _scores(self, batch: list[Tree], masked: bool, sequences: list[Sequence]) -> Batch:
        places, counts = predictions(batch, sequences)
        rows, columns, labels = places.to(self.device).T
        if self.reads_prompts:
            logits = prompt_reading.logits_of_text(self.model, batch[0], sequences)[columns]
            scores = _logprob_and_greedy(logits, labels).cpu()
        else:
            hidden = hidden_states(self.model, batch, masked)[rows, columns]
            head = self.model.get_output_embeddings()
            scores = apply_term(_logprob_and_greedy, hidden, labels, head).cpu()
        texts = [index for tree in batch for index, _ in tree.texts]
        found = {}
        for index, part in zip(texts, scores.split(counts), strict=True):
            logprobs, greedy = part.T.tolist()
            found[index] = TokenScores(logprobs, [value > 0 for value in greedy])
        return found

    def _grouped(
        self,
        lengths: list[int],
        verb: str,
        wanted: Wanted,
        *,
        padded_to: list[int] | None = None,
        most: int | None = None,
    ) -> Iterator[list[int]]:
        """Yield indices in batches of similar length, longest first, within `most` padded tokens.

        Batches without anything wanted are left out.
        """
        budget = 0 if self.reads_prompts else most or self.batch_tokens  # 0: one at a time
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        with progress(len(order), verb, "text") as bar:
            while order:
                width = padded_to[order[0]] if padded_to else lengths[order[0]]
                size = max(1, budget // max(width, 1))
                if any(map(wanted, order[:size])):
                    yield order[:size]
                bar.update(len(order[:size]))
                order = order[size:]


def _any_in(wanted: Wanted, requests: list[list[int]], place: int) -> bool:
    return any(map(wanted, requests[place]))


def _logprob_and_greedy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (n, 2): log-probability of the label, and 1 where it is the argmax."""
    logprobs = logits.log_softmax(-1).gather(1, labels[:, None])
    return torch.cat([logprobs, (logits.argmax(-1) == labels)[:, None].to(logprobs)], dim=1)
