"""TOFU's evaluation beside the published way, with the same numbers.

Published way (locuslab/tofu, ``evaluate_util.py``): every answer is a row of its own, padded to 200 tokens,
and the logits of all positions are formed; generation takes questions as they come, four at a time,
left-padded, to 200 tokens in total.
"""

import time
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from benchmarks.measure import Row, interleaved, seconds_of
from loku_exp.data.records import IGNORED, Example, Sequence
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.generation import continued
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.lm.together import continued_together
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.tofu import suite as tofu
from loku_exp.models.tokenizer import train_tokenizer

QUESTIONS = 16
LENGTH = 200  # published: of a padded row, and of prompt and generation together
BATCH, GENERATED_TOGETHER = 32, 4
PROMPT, ANSWER, VARIATION = 24, 38, 10  # tokens, as TOFU has them
VOCABULARY = 8192
TOGETHER, GOING_ON = 64, 8  # prompts of a batch, of which one in so many does not end


def rows() -> list[Row]:
    model, records = _model(), _records()
    tokenizer = train_tokenizer(["a b c"], 300)
    scoring = tofu.Scoring("geometric", LENGTH, _decode)
    found: dict[str, float] = {}
    inside = 0.0

    class Timed(UnlearnLM):
        """Adds up the time in which requests are answered."""

        def token_scores(self, requests: list[Any]) -> Any:
            nonlocal inside
            start = time.perf_counter()
            answers = super().token_scores(requests)
            inside = time.perf_counter() - start
            return answers

    def ours(asked: list[Example], generate: bool) -> None:
        options: dict[str, Any] = {"batch_tokens": 16_384, "max_length": 512, "stop_at_eos": False}
        lm = Timed(Answers(), partial(Inference, model, tokenizer, **options))
        task = tofu.TofuTask("forget", asked, scoring, None, generate=generate)
        found["ours"] = evaluate(lm, [task]).metrics["forget_prob"]

    def published(asked: list[Example], generate: bool) -> None:
        found["published"] = _scored(model, asked)
        if generate:
            _generated(model, asked)

    measured = []
    for generate, name, limit in ((False, "scores", 5), (True, "scores and generations", 0)):
        asked = records[: QUESTIONS // 2] if generate else records
        ways = {
            "ours": partial(ours, asked, generate),
            "published": partial(published, asked, generate),
        }
        if not generate:
            ways["ours"]()  # warms up both
        seconds = interleaved(ways, repeats=1 if generate else 2, warmed=True)
        if not generate:
            outside = 1000 * (seconds_of(ways["ours"]) - inside) / QUESTIONS
        if abs(found["ours"] / found["published"] - 1) > 1e-4:
            raise AssertionError(f"the two ways differ: {found}")
        measured.append(
            Row(
                f"TOFU evaluation, {name}: time saved",
                seconds["published"] / seconds["ours"],
                limit,
                "x the published way",
                f"{len(asked)} questions of 7 answers, Llama of 4 layers x 256: {seconds['ours']:.2f} s, "
                f"published {seconds['published']:.2f} s",
                at_least=True,
            )
        )
    detail = "lm-eval and the task's own work, beside the time in which the model answers"
    measured.append(
        Row("TOFU evaluation: what is not the model", outside, 5, "ms a question", detail)
    )
    return [*measured, _ending_early()]


def _ending_early() -> Row:
    """Measure answers of a model that knows some: most end at TOFU's length, some go on and on.

    Both ways get the same batch, and the same rows in it; where an answer ends is set by its budget.
    """
    model, generator = _model(), torch.Generator().manual_seed(1)
    prompts = [tuple(torch.randint(VOCABULARY, (PROMPT,), generator=generator).tolist())] * TOGETHER
    prompts = [
        (row % VOCABULARY, *prompt[1 + row % VARIATION :]) for row, prompt in enumerate(prompts)
    ]
    budgets = [
        LENGTH - PROMPT if row % GOING_ON == 0 else ANSWER - VARIATION + row % (2 * VARIATION)
        for row in range(TOGETHER)
    ]
    found: dict[str, Any] = {}

    def ours() -> None:
        found["ours"] = continued_together(model, prompts, budgets, end_of_text=None)

    def stock() -> None:
        found["stock"] = continued(model, prompts, budgets, end_of_text=None, padding=0)

    seconds = interleaved({"ours": ours, "stock": stock}, repeats=2)
    if found["ours"] != found["stock"]:
        raise AssertionError("the two ways generate different texts")
    detail = (
        f"{TOGETHER} prompts in a batch, one in {GOING_ON} to {LENGTH} tokens: {seconds['ours']:.2f} s, "
        f"{seconds['stock']:.2f} s"
    )
    saved = seconds["stock"] / seconds["ours"]
    return Row("generations: time saved", saved, 1.5, "x transformers' own", detail, at_least=True)


def _model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def _records() -> list[Example]:
    generator = torch.Generator().manual_seed(0)

    def text(mean: int) -> tuple[int, ...]:
        spread = torch.randint(-VARIATION, VARIATION + 1, (1,), generator=generator)
        return tuple(torch.randint(VOCABULARY, (mean + int(spread),), generator=generator).tolist())

    found = []
    for row in range(QUESTIONS):
        prompt = text(PROMPT)
        answers = [text(ANSWER) for _ in range(7)]
        labelled = [Sequence(prompt + a, (IGNORED,) * len(prompt) + a) for a in answers]
        others = {"paraphrase": (labelled[1],), "wrong": tuple(labelled[2:])}
        reference = _decode(list(answers[0]))
        found.append(
            Example(row, "", "forget", prompt, labelled[0], others, f"question {row}", reference)
        )
    return found


def _decode(ids: list[int]) -> str:
    return " ".join(map(str, ids))


@torch.no_grad()
def _scored(model: Any, records: list[Example]) -> float:
    """Return the mean probability of the answers; the other texts' losses are computed and dropped."""
    probabilities = []
    kinds = [
        [record.answer for record in records],
        [record.alternatives["paraphrase"][0] for record in records],
        [wrong for record in records for wrong in record.alternatives["wrong"]],
    ]
    for kind, texts in enumerate(kinds):
        for start in range(0, len(texts), BATCH):
            losses = _losses(model, texts[start : start + BATCH])
            if kind == 0:
                probabilities += (-losses).exp().tolist()
    return fmean(probabilities)


@torch.no_grad()
def _generated(model: Any, records: list[Example]) -> None:
    for start in range(0, len(records), GENERATED_TOGETHER):
        batch = records[start : start + GENERATED_TOGETHER]
        width = max(len(record.prompt) for record in batch)
        pads = [width - len(record.prompt) for record in batch]
        rows = zip(pads, batch, strict=True)
        ids = torch.tensor([[0] * pad + list(record.prompt) for pad, record in rows])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
        config = GenerationConfig(
            max_length=LENGTH, do_sample=False, eos_token_id=[], pad_token_id=0
        )
        said = model.generate(ids, attention_mask=mask, generation_config=config)[:, width:]
        for record, tokens in zip(batch, said.tolist(), strict=True):
            tofu.rouge_recall(record.reference, _decode(tokens))


def _losses(model: Any, texts: list[Sequence]) -> torch.Tensor:
    """Return the loss per labelled token of each text, from the logits of all padded positions."""
    ids = torch.tensor([[*text.ids, *[0] * (LENGTH - len(text.ids))] for text in texts])
    labels = torch.tensor([[*text.labels, *[IGNORED] * (LENGTH - len(text.ids))] for text in texts])
    mask = torch.tensor([[int(t < len(text.ids)) for t in range(LENGTH)] for text in texts])
    logits = model(input_ids=ids, attention_mask=mask).logits
    targets = labels[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].mT, targets, reduction="none")
    return losses.sum(-1) / (targets != IGNORED).sum(-1)
