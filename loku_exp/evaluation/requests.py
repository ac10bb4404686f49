"""Requests of a suite's own: what the known ones do not tell about a text, asked and kept like them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance

from loku_exp.evaluation.lm.answers import Answers, Wanted
from loku_exp.evaluation.lm.inference import Batch, Inference
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM

Answerer = Callable[[Inference, list[Instance], Wanted], Iterator[Batch]]
"""From a model, different requests of one type, and which of them (by index) need an answer, to answers by
index, batch by batch, which JSON can hold; see `Inference.batches`."""


class SuiteLM(UnlearnLM):
    """What lm-eval talks to where a suite has request types of its own.

    Args:
        answers: see `UnlearnLM`.
        load: see `UnlearnLM`.
        own: by request type, what answers it.
        reads_prompts: see `UnlearnLM`.
    """

    def __init__(
        self,
        answers: Answers,
        load: Callable[[], Inference],
        own: Mapping[str, Answerer],
        *,
        reads_prompts: bool = False,
    ):
        super().__init__(answers, load, reads_prompts=reads_prompts)
        self._own = own

    def __getattr__(self, kind: str) -> Any:
        if kind in vars(self).get("_own", {}):
            return partial(self._asked, kind)
        raise AttributeError(f"no request type '{kind}'")

    def _compute(self, kind: str, requests: list[Instance], wanted: Wanted) -> Any:
        if kind not in self._own:
            return super()._compute(kind, requests, wanted)
        if self._inference is None:
            self._inference = self._load()
        return self._own[kind](self._inference, requests, wanted)
