"""Perplexity per token of the model's own tokenizer, as an lm-eval task.

lm-eval's own perplexities are per word or per byte and must not be compared with it. Source: Jang et al.
2023, which reports the exponential of the mean over batches of the token-mean loss; here the mean is
over all tokens, so that it does not depend on the batch size.
"""

import math
from typing import Any

from loku_exp.data.records import Example
from loku_exp.evaluation.lm.answers import TokenScores
from loku_exp.evaluation.tasks import OwnTask, Request


class PerplexityTask(OwnTask):
    """exp(sum of negative log-probabilities / predicted tokens) over some texts.

    Args:
        name: of the texts.
        rows: fully labelled.
    """

    def __init__(self, name: str, rows: list[Example]):
        self.rows = {record.row: record for record in rows}
        documents = {row: (f"row {row}", "") for row in self.rows}
        super().__init__(name, documents, {"ppl": perplexity}, lower_is_better=("ppl",))

    def requests(self, row: int) -> list[Request]:
        """Ask for the log-probability of every token."""
        return [("token_scores", (f"row {row}", self.rows[row].answer))]

    def process_results(self, doc: dict[str, Any], results: list[TokenScores]) -> dict[str, Any]:
        """Return loss and number of tokens of one text."""
        (scores,) = results
        tokens = len(scores.logprobs)
        example = {"row": doc["row"], "tokens": tokens, "loss": scores.loss}
        return {"ppl": (scores.loss * tokens, tokens), "n": example}


def perplexity(texts: list[tuple[float, int]]) -> float:
    """Return exp(sum of losses / sum of tokens).

    Args:
        texts: summed negative log-probability in nats, and number of predicted tokens, of each text.
    """
    return math.exp(sum(loss for loss, _ in texts) / sum(tokens for _, tokens in texts))
