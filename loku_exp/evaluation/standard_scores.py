"""How unusual each token of a text is among all that might stand there: a request type of its own.

The log-probability of a token, less its mean over the vocabulary under the model's own distribution, over
its standard deviation there; min-k++ is the mean of the lowest of them. Source: Zhang et al. 2024
(arXiv 2404.02936), with OpenUnlearning's least variance of 1e-6.
"""

from collections.abc import Iterator

import torch
from lm_eval.api.instance import Instance
from torch import Tensor

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm import prompt_reading
from loku_exp.evaluation.lm.answer_tree import unlabelled
from loku_exp.evaluation.lm.answers import Wanted
from loku_exp.evaluation.lm.inference import CPU_BATCH_TOKENS, Batch, Inference
from loku_exp.models.head import apply_term, hidden_before_head, label_positions
from loku_exp.runtime.logs import progress

STANDARD_SCORES = "standard_scores"
LEAST_VARIANCE = 1e-6


def standard_score(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (log p(label) - mu) / sigma, (n,), mu and sigma of log p(v) over v drawn from p.

    Args:
        logits: (n, V).
        labels: (n,).
    """
    logprobs = logits.log_softmax(-1)
    shares = logprobs.exp()
    mean = (shares * logprobs).sum(-1)
    variance = (shares * (logprobs - mean[:, None]).square()).sum(-1)
    own = logprobs.gather(1, labels[:, None])[:, 0]
    return (own - mean) / variance.clamp_min(LEAST_VARIANCE).sqrt()


@torch.no_grad()
def standard_scores(
    inference: Inference, requests: list[Instance], wanted: Wanted
) -> Iterator[Batch]:
    """Yield the standard score of each labelled token; arguments of a request: (question, `Sequence`)."""
    texts: list[Sequence] = [request.args[1] for request in requests]
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i].ids), i))
    most = inference.batch_tokens
    if inference.device.type == "cpu":
        most = min(CPU_BATCH_TOKENS, most)
    with progress(len(texts), "scoring against the vocabulary", "text") as bar:
        while order:
            size = 1 if inference.reads_prompts else max(1, most // len(texts[order[0]].ids))
            batch, order = order[:size], order[size:]
            bar.update(len(batch))
            if any(map(wanted, batch)):
                found = _scores(inference, [texts[i] for i in batch])
                yield dict(zip(batch, found, strict=True))


def _scores(inference: Inference, texts: list[Sequence]) -> list[list[float]]:
    model = inference.model
    batch = to_device(pad(texts), model.device)
    rows, columns = label_positions(batch)
    labels = batch["labels"][rows, columns + 1]
    if inference.reads_prompts:
        (text,) = texts
        logits = prompt_reading.logits(model, text.ids, unlabelled(text))[columns]
        values = standard_score(logits, labels)
    else:
        hidden = hidden_before_head(model, batch)[rows, columns]
        values = apply_term(standard_score, hidden, labels, model.get_output_embeddings())
    counts = [text.num_labels for text in texts]
    return [part.tolist() for part in values.cpu().split(counts)]
