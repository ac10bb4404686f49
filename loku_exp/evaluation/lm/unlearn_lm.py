"""What lm-eval talks to: a subject that knows token ids, and remembers what it answered.

lm-eval hands every request type to the method of that name, so a new request type is a method. Stock
tasks run on the same object in the same call.
"""

from collections.abc import Callable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm.answers import Answers, TokenScores, Wanted
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.tdec.metrics import Greedy, hits


class UnlearnLM(LM):
    """A language model for tasks over token ids.

    Args:
        answers: what is known already, and where new answers are kept.
        load: gives the model; called once something is asked that is not known, and only then.
        reads_prompts: whether the model is told where a prompt ends. Then a prefix that is continued is a
            prompt, and a text that is scored has none.
    """

    def __init__(
        self, answers: Answers, load: Callable[[], Inference], *, reads_prompts: bool = False
    ):
        super().__init__()
        self.answers, self.reads_prompts = answers, reads_prompts
        self._load = load
        self._inference: Inference | None = None

    # -- request types of this package: arguments are (text for people, ids..., options...) ----------

    def token_scores(self, requests: list[Instance]) -> list[TokenScores]:
        """Score labelled texts; arguments: (question, `Sequence`)."""
        return [TokenScores(*answer) for answer in self._asked("token_scores", requests)]

    def generate_ids(self, requests: list[Instance]) -> list[list[int]]:
        """Continue prompts greedily; arguments: (question, prompt ids, max tokens in total)."""
        return self._asked("generate_ids", requests)

    def greedy_suffixes(self, requests: list[Instance]) -> list[Greedy]:
        """Say what follows every prefix of a text; arguments: (text, ids, n[, shown]).

        n is the smallest n-gram that continuations are needed for; 0: none, only the argmax. `shown`
        is a prefix length whose continuation is needed in any case. A text that was read for this is
        scored as well, so a perplexity over it costs nothing.
        """
        answers = self._asked("greedy_suffixes", requests)
        if self.reads_prompts:  # a prefix was its prompt there; a text that is scored has none
            return [Greedy(*answer) for answer in answers]
        for request, (logprobs, argmax, _) in zip(requests, answers, strict=True):
            ids = request.args[1]
            scores = TokenScores(logprobs, hits(ids, argmax))
            self.answers.remember("token_scores", (Sequence(ids, ids),), scores)
        return [Greedy(*answer) for answer in answers]

    # -- request types of lm-eval, remembered likewise ------------------------------------------------

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """See `LM`."""
        return [(logprob, greedy) for logprob, greedy in self._asked("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """See `LM`."""
        return self._asked("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """See `LM`."""
        return self._asked("generate_until", requests)

    def _asked(self, kind: str, requests: list[Instance]) -> list[Any]:
        return self.answers.answer(kind, requests, self._compute)

    def _compute(self, kind: str, requests: list[Instance], wanted: Wanted) -> Any:
        if self._inference is None:
            self._inference = self._load()
        batches: Any = self._inference.batches(kind, requests, wanted)
        return batches
