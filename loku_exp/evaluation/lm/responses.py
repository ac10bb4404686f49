"""What a model answered, by request: equal requests are computed once, and can be replayed later."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from loku_exp.evaluation.tdec.metrics import Greedy
from loku_exp.runtime.cache import write_text

OWN_REQUESTS = (
    "token_scores",
    "generate_ids",
    "greedy_suffixes",
)  # their first argument is for people


class TokenScores(NamedTuple):
    """Per labelled token of a text: its log-probability in nats, and whether it was the argmax."""

    logprobs: list[float]
    greedy: list[bool]

    @property
    def loss(self) -> float:
        """The mean negative log-probability per labelled token, in nats."""
        return -sum(self.logprobs) / len(self.logprobs)


class Responses:
    """Answers of one model.

    Args:
        file: to read earlier answers from, if it is there, and to save to.
    """

    def __init__(self, file: Path | None = None):
        self.file = file
        self.answers: dict[str, Any] = {}
        if file is not None and file.is_file():
            self.answers = json.loads(file.read_text(encoding="utf-8"))

    def answer(
        self, kind: str, requests: list[Instance], compute: Callable[[list[Instance]], list[Any]]
    ) -> list[Any]:
        """Return the answer to each request, computing those not seen before.

        Args:
            kind: the request type.
            requests: of that type.
            compute: answers requests that are all different.
        """
        keys = [_key(kind, request) for request in requests]
        pairs = zip(keys, requests, strict=True)
        missing = {key: request for key, request in pairs if key not in self.answers}
        if missing:
            answers = compute(list(missing.values()))
            self.answers |= dict(zip(missing, answers, strict=True))
        return [self.answers[key] for key in keys]

    def remember(self, kind: str, content: tuple[Any, ...], answer: Any) -> None:
        """Keep an answer that was found on the way; `content` is a request's, without its text."""
        self.answers.setdefault(_key_of(kind, content), answer)

    def save(self) -> None:
        """Write all answers to the file, whole."""
        if self.file is not None:
            write_text(self.file, json.dumps(self.answers))


class Replay(LM):
    """A language model that only repeats what another one answered.

    Args:
        responses: must hold an answer to every request.
    """

    def __init__(self, responses: Responses):
        super().__init__()
        self.responses = responses

    def token_scores(self, requests: list[Instance]) -> list[TokenScores]:
        """See `UnlearnLM`."""
        return [TokenScores(*answer) for answer in self._replay("token_scores", requests)]

    def generate_ids(self, requests: list[Instance]) -> list[list[int]]:
        """See `UnlearnLM`."""
        return self._replay("generate_ids", requests)

    def greedy_suffixes(self, requests: list[Instance]) -> list[Greedy]:
        """See `UnlearnLM`."""
        return [Greedy(*answer) for answer in self._replay("greedy_suffixes", requests)]

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:
        """See `LM`."""
        return self._replay("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[Any]:
        """See `LM`."""
        return self._replay("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance]) -> list[Any]:
        """See `LM`."""
        return self._replay("generate_until", requests)

    def _replay(self, kind: str, requests: list[Instance]) -> list[Any]:
        def unknown(missing: list[Instance]) -> list[Any]:
            raise KeyError(f"{len(missing)} {kind} requests were never answered")

        return self.responses.answer(kind, requests, unknown)


def _key(kind: str, request: Instance) -> str:
    return _key_of(kind, request.args[1:] if kind in OWN_REQUESTS else request.args)


def _key_of(kind: str, content: tuple[Any, ...]) -> str:
    return hashlib.sha256(f"{kind}{content!r}".encode()).hexdigest()[:24]
