"""What is timed on a GPU, first against plain float64 on small shapes of the same architectures."""

import copy
from typing import Any

import torch
from lm_eval.api.instance import Instance
from torch import Tensor
from torch.nn import functional

from loku_exp.data.batches import Padded, pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.lm.wavefront import greedy_continuations
from loku_exp.evaluation.tdec.metrics import continuations
from loku_exp.fisher.blockwise import sweep_fisher
from loku_exp.fisher.hooks import diagonal_fisher
from loku_exp.losses.builtin import ihl
from loku_exp.models.load import linear_layers
from loku_exp.training.trainer import Objective

TOLERANCE = 1e-3  # relative, fp32 against float64


def errors_of(model: Any, tokenizer: Any, texts: list[Sequence]) -> dict[str, float]:
    """Return the relative error of every timed part on a small fp32 model, and of continuations.

    Args:
        model: on the device to be timed.
        tokenizer: any.
        texts: at least six, short.
    """
    exact = copy.deepcopy(model).double().cpu()
    forget, retain = texts[:3], texts[3:6]
    found = {"step gradient": _step_error(model, exact, forget, retain)}
    found |= _fisher_errors(model, exact, forget, retain)
    found["answer log-probability"] = _score_error(model, exact, tokenizer, texts)
    found["continuations that differ"] = _different(model, exact, [text.ids for text in texts])
    return found


def _step_error(model: Any, exact: Any, forget: list[Sequence], retain: list[Sequence]) -> float:
    batch = {"forget": pad(forget), "retain": pad(retain)}
    here = {name: to_device(one, model.device) for name, one in batch.items()}
    Objective(ihl, ("forget", "retain"))(model, here).total.backward()
    logits, labels = _labelled(exact, batch["forget"])
    p = logits.softmax(-1)
    of_label = p.gather(1, labels[:, None])[:, 0]
    runner_up = p.scatter(1, labels[:, None], -1).max(-1).values
    loss = (1 + of_label - runner_up).mean()
    (loss + functional.cross_entropy(*_labelled(exact, batch["retain"]))).backward()
    return max(
        _relative(ours.grad, theirs.grad)
        for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True)
        if theirs.grad is not None and theirs.grad.any()
    )


def _fisher_errors(
    model: Any, exact: Any, forget: list[Sequence], retain: list[Sequence]
) -> dict[str, float]:
    layers, of_exact = linear_layers(model), linear_layers(exact)
    sums: dict[str, Tensor] = {}
    for text in forget:
        exact.zero_grad()
        functional.cross_entropy(*_labelled(exact, pad([text]))).backward()
        for name, layer in of_exact.items():
            sums[name] = sums.get(name, 0) + text.num_labels * layer.weight.grad**2  # type: ignore[operator]
    total = sum(text.num_labels for text in forget)
    swept: dict[str, Tensor] = {}

    def reducer(name: str, of_forget: Tensor, _: Tensor) -> None:
        swept[name] = of_forget

    sweep_fisher(model, layers, forget, retain, reducer)
    hooks = diagonal_fisher(model, layers, forget)
    return {
        f"Fisher, {way}": max(_relative(found[name], sums[name] / total) for name in layers)
        for way, found in (("hooks", hooks), ("sweep", swept))
    }


@torch.no_grad()
def _score_error(model: Any, exact: Any, tokenizer: Any, texts: list[Sequence]) -> float:
    lm = UnlearnLM(Answers(), lambda: Inference(model, tokenizer, batch_tokens=256, max_length=64))
    requests = [Instance("token_scores", {}, (str(i), text), 0) for i, text in enumerate(texts)]
    worst = 0.0
    for scores, text in zip(lm.token_scores(requests), texts, strict=True):
        logits, labels = _labelled(exact, pad([text]))
        expected = logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]
        worst = max(worst, _relative(torch.tensor(scores.logprobs), expected))
    return worst


@torch.no_grad()
def _different(model: Any, exact: Any, texts: list[tuple[int, ...]]) -> float:
    """Return the share of prefixes that continue otherwise than by decoding each alone in float64."""
    different = total = 0
    for ids in texts:
        (answer,) = greedy_continuations(
            model, [ids], lambda ids, _: list(range(1, len(ids))), 2**30
        )
        for prefix, suffix in continuations(ids, answer).items():
            row = torch.tensor([ids[:prefix]])
            while row.shape[1] < len(ids):
                following = exact(input_ids=row).logits[:, -1:].argmax(-1)
                row = torch.cat([row, following], dim=1)
            different += tuple(row[0, prefix:].tolist()) != tuple(suffix)
            total += 1
    return different / total


def _labelled(model: Any, batch: Padded) -> tuple[Tensor, Tensor]:
    """Return logits and labels of the labelled positions, from whole logits."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    rows, columns = batch["predicting"]
    return logits[rows, columns], batch["labels"][rows, columns + 1]


def _relative(ours: Tensor, exact: Tensor) -> float:
    return float((ours.detach().cpu().double() - exact).norm() / exact.norm())
