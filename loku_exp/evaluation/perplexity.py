"""Perplexity per token of the model's own tokenizer, as an lm-eval task.

lm-eval's own perplexities are per word or per byte and must not be compared with it. Source: Jang et al.
2023, which reports the exponential of the mean over batches of the token-mean loss; here the mean is
over all tokens, so that it does not depend on the batch size.
"""

import math
from typing import Any

import datasets
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from loku_exp.data.records import Record
from loku_exp.evaluation.responses import TokenScores


class PerplexityTask(ConfigurableTask):
    """exp(sum of negative log-probabilities / predicted tokens) over some texts.

    Args:
        name: of the texts.
        rows: fully labelled.
    """

    VERSION = 1

    def __init__(self, name: str, rows: list[Record]):
        self.rows = {record.row: record for record in rows}
        super().__init__(
            config={
                "task": name,
                "output_type": "generate_until",
                "test_split": "test",
                "doc_to_text": "text",
                "doc_to_target": "text",
                "process_results": lambda *_: {},  # keeps lm-eval from looking metrics up on the hub
                "metric_list": [
                    {"metric": "ppl", "aggregation": perplexity, "higher_is_better": False},
                    {"metric": "n", "aggregation": len, "higher_is_better": True},
                ],
            }
        )

    def download(self, *_: Any, **__: Any) -> None:
        """Make the documents from the records."""
        documents = [{"row": row, "text": f"row {row}"} for row in self.rows]
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(documents)})

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """Ask for the log-probability of every token."""
        arguments = (ctx, self.rows[doc["row"]].answer)
        return [Instance("token_scores", doc, arguments, idx=0, metadata=kwargs["metadata"])]

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
