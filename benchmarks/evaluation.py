"""TOFU's evaluation beside the published way, with the same numbers.

Published way (locuslab/tofu, ``evaluate_util.py``): every answer is a row of its own, padded to 200 tokens,
and the logits of all positions are formed; generation takes questions as they come, four at a time,
left-padded, to 200 tokens in total.
"""

from statistics import fmean

import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from benchmarks.measure import Row, interleaved
from loku_exp.data.records import IGNORED, Record, Records, Sequence
from loku_exp.evaluation import tofu
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm import UnlearnLM
from loku_exp.models import train_tokenizer

QUESTIONS = 32
LENGTH = 200  # published: of a padded row, and of prompt and generation together
BATCH, GENERATED_TOGETHER = 32, 4
PROMPT, ANSWER, VARIATION = 24, 38, 10  # tokens, as TOFU has them
VOCABULARY = 1024


def rows() -> list[Row]:
    model, records = _model(), _records()
    tokenizer = train_tokenizer(["a b c"], 300)
    sets = {"forget": records}
    world = Records([], [], records, [], sets)
    suite = tofu.Suite(world, _decode, None, "geometric", LENGTH)
    found: dict[str, float] = {}

    def ours() -> None:
        lm = UnlearnLM(model, tokenizer, batch_tokens=16_384, max_length=512, stop_at_eos=False)
        task = tofu.TofuTask("forget", records, suite, None, generate=True)
        found["ours"] = evaluate(lm, [task]).metrics["forget_prob"]

    def published() -> None:
        found["published"] = _published(model, records)

    seconds = interleaved({"ours": ours, "published": published}, repeats=3)
    if abs(found["ours"] / found["published"] - 1) > 1e-4:
        raise AssertionError(f"the two ways differ: {found}")
    return [
        Row(
            "TOFU evaluation: time saved",
            seconds["published"] / seconds["ours"],
            5,
            "x the published way",
            f"{QUESTIONS} questions of 7 answers, Llama of 2 layers x 128: {seconds['ours']:.2f} s, "
            f"published {seconds['published']:.2f} s",
            at_least=True,
        )
    ]


def _model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def _records() -> list[Record]:
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
            Record(row, "", "forget", prompt, labelled[0], others, f"question {row}", reference)
        )
    return found


def _decode(ids: list[int]) -> str:
    return " ".join(map(str, ids))


@torch.no_grad()
def _published(model: LlamaForCausalLM, records: list[Record]) -> float:
    """Return the mean probability of the answers; everything else is computed and dropped."""
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
    return fmean(probabilities)


def _losses(model: LlamaForCausalLM, texts: list[Sequence]) -> torch.Tensor:
    """Return the loss per labelled token of each text, from the logits of all padded positions."""
    ids = torch.tensor([[*text.ids, *[0] * (LENGTH - len(text.ids))] for text in texts])
    labels = torch.tensor([[*text.labels, *[IGNORED] * (LENGTH - len(text.ids))] for text in texts])
    mask = torch.tensor([[int(t < len(text.ids)) for t in range(LENGTH)] for text in texts])
    logits = model(input_ids=ids, attention_mask=mask).logits
    targets = labels[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].mT, targets, reduction="none")
    return losses.sum(-1) / (targets != IGNORED).sum(-1)
