"""Small models and texts shared by tests."""

import inspect
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hydra.utils import get_method
from lm_eval.api.instance import Instance
from omegaconf import OmegaConf
from torch import nn

from loku_exp.data.records import IGNORED, Example, Records, Sequence
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.suite import Evaluation, Suite
from loku_exp.evaluation.tofu.suite import tofu_suite
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.training.snapshots import Snapshots


def random_sequence(length: int, num_prompt: int, vocabulary: int, seed: int) -> Sequence:
    """A random text whose first tokens are not labelled."""
    generator = torch.Generator().manual_seed(seed)
    ids = tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())
    return Sequence(ids, (IGNORED,) * num_prompt + ids[num_prompt:])


def tiny_model(
    tied: bool = True,
    bias: bool = False,
    dtype: torch.dtype = torch.float32,
    vocabulary: int = 61,
) -> nn.Module:
    """A GPT-Neo of two layers, width 16, window 8; the same weights every time."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=vocabulary, hidden_size=16, num_layers=2, num_heads=2, window_size=8,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=64,
        tie_word_embeddings=tied, resid_dropout=0, embed_dropout=0, attention_dropout=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPTNeoForCausalLM(config).to(dtype)
    if bias:
        model.lm_head.bias = nn.Parameter(torch.randn(vocabulary, dtype=dtype))
    return model.eval()


def tiny_records() -> Records:
    """Records of TOFU's four evaluation sets over 61 random tokens."""

    def record(row: int, role: str, wrong: int) -> Example:
        texts = [random_sequence(6 + (row + k) % 5, 3, 61, 100 * row + k) for k in range(wrong + 2)]
        return Example(
            row=row,
            group=f"author {row // 2}",
            role=role,
            prompt=texts[0].ids[:3],
            answer=texts[0],
            alternatives={"paraphrase": (texts[1],), "wrong": tuple(texts[2:])},
            question=f"question {row}",
            reference=f"{row} 17 {row + 1}",
        )

    sets = {
        name: [record(first + row, name, wrong) for row in range(6)]
        for name, first, wrong in (
            ("forget", 0, 5),
            ("retain", 10, 5),
            ("authors", 20, 3),
            ("facts", 30, 3),
        )
    }
    return Records(sets["forget"], sets["retain"], sets["forget"], sets["retain"], sets)


def tdec_folder(place: Path, rows: int = 6) -> Path:
    """A folder laid out like TDEC's, with invented texts; set 2_0 is nested in 4_0, 32_* and 128_0."""
    rng = random.Random(0)
    words = [
        "amber",
        "birch",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "heath",
        "inlet",
        "joist",
        "knoll",
        "larch",
        "marsh",
    ]

    def text(length: int = 60) -> str:
        return " ".join(rng.choice(words) + str(rng.randrange(10)) for _ in range(length))

    texts = [text() for _ in range(rows)]
    (place / "forget_sets").mkdir(parents=True)
    for size, count in ((2, 2), (4, 4), (8, rows - 1), (32, rows - 2), (128, rows)):
        lines = ["doc_id,corpus,text", *(f'{i},invented,"{texts[i]}"' for i in range(count))]
        for number in range(3 if size == 32 else 1):
            file = place / f"forget_sets/lm_extraction_{size}_{number}.csv"
            file.write_text("\n".join(lines) + "\n")
    (place / "validation_data").mkdir()
    for name, header in (("pile", "doc_id,text,corpus"), ("wikitext", ",text")):
        tail = ",invented" if name == "pile" else ""
        lines = [header, *(f'{i},"{text()}"{tail}' for i in range(12))]
        (place / f"validation_data/{name}.csv").write_text("\n".join(lines) + "\n")
    return place


TOKENIZER = train_tokenizer(["a b c d e f g"], 300)


class Numbers:
    """A tokenizer whose tokens are numbers."""

    eos_token_id = 0

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(map(str, ids))


def tiny_suite(rows: int | str = "all", records: Records | None = None) -> Suite:
    """TOFU's suite over `tiny_records`, or others."""
    knobs = {"rows": rows, "truth_ratio": "geometric", "max_tokens": 24}
    return tofu_suite(records or tiny_records(), Numbers(), **knobs)


def evaluation_of(
    metrics: dict[str, float],
    examples: list[dict] | None = None,
    counts: dict[str, int] | None = None,
) -> Evaluation:
    """An evaluation of which only some is known."""
    return Evaluation(metrics, counts or {}, examples or [])


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    """Requests of a type."""
    return [Instance(kind, {}, argument, 0, (None, None, 1)) for argument in arguments]


def inference_of(model: nn.Module, tokenizer=TOKENIZER, **options) -> Inference:
    """A model in memory that answers requests; it never ends at end-of-text unless asked to."""
    options = {"batch_tokens": 64, "max_length": 64, "stop_at_eos": False} | options
    return Inference(model, tokenizer, **options)


def lm_of(inference: Inference, answers: Answers | None = None) -> UnlearnLM:
    """What lm-eval talks to, around a model in memory."""
    return UnlearnLM(answers or Answers(), lambda: inference)


def never() -> Inference:
    """Fail, where a model must not be loaded."""
    raise AssertionError("the model was asked")


@torch.no_grad()
def plain_scores(model: nn.Module, sequence: Sequence, **options) -> tuple[list[float], list[bool]]:
    """Log-probability and greediness of each labelled token by a forward of one unpadded text."""
    logits = model(
        input_ids=torch.tensor([sequence.ids]),
        attention_mask=torch.ones(1, len(sequence.ids)),
        **options,
    ).logits[0]
    places = [t for t in range(1, len(sequence.ids)) if sequence.labels[t] != IGNORED]
    logprobs = [logits[t - 1].log_softmax(-1)[sequence.ids[t]].item() for t in places]
    return logprobs, [int(logits[t - 1].argmax()) == sequence.ids[t] for t in places]


@torch.no_grad()
def plain_greedy(model: nn.Module, prompt: tuple[int, ...], count: int) -> list[int]:
    """Greedy continuation without cache, padding or batch."""
    ids = list(prompt)
    for _ in range(count):
        logits = model(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), use_cache=False
        ).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


TINY_TDEC = [
    "model=toy_neo",
    "dataset=toy_tdec",
    "dataset.length=32",
    "dataset.num_forget=4",
    "dataset.num_siblings=4",
    "dataset.num_retain=24",
    "dataset.num_unseen=8",
    "model.architecture.hidden_size=64",
    "model.finetuning.epochs=10",
    "target.min_known=0",
    "training.epochs=3",
    "training.stop.n=2",
    "evaluation.n=[2,10]",
    "training.retain_batch_size=4",
]


@contextmanager
def killed_at_its_first_snapshot() -> Iterator[None]:
    """A run inside is interrupted as soon as it has a snapshot, and must be."""
    on_save = Snapshots.on_save

    def killed(self, args, state, control, **rest):
        on_save(self, args, state, control, **rest)
        raise KeyboardInterrupt

    with patch.object(Snapshots, "on_save", killed), pytest.raises(KeyboardInterrupt):
        yield


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def assert_defaults_are_the_yamls(file: Path) -> None:
    """Assert that a function's knobs and their defaults are the keys and values of its yaml."""
    yaml = dict(OmegaConf.load(file).items())
    function = get_method(yaml.pop("_target_"))
    knobs = inspect.signature(function).parameters.values()
    assert yaml == {p.name: p.default for p in knobs if p.kind == p.KEYWORD_ONLY}
