"""EL and MA of 32 x 200 tokens beside one generation per prefix, and the stop rule beside an epoch.

Published way (joeljang/knowledge-unlearning, ``models/Neo_Model.py``): for every prefix length from 199 to
1 one ``generate`` of the whole batch, for EL; one more token at every prefix, for MA. Texts are made with
the model itself: each token is its argmax with a given probability, else a random one, so that
memorisation accuracy is that probability whatever the weights are.
"""

import time
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from benchmarks.measure import Row
from loku_exp.adapters import Adapter, attach
from loku_exp.compose import compose_config
from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.evaluation.extraction import Greedy, continuations, wanted
from loku_exp.evaluation.forgotten import Thresholds, check
from loku_exp.evaluation.wavefront import greedy_continuations
from loku_exp.inits.vanilla import vanilla
from loku_exp.losses.objectives import ihl
from loku_exp.training import Objective

B, T, N = 32, 200, 10
SAMPLED = 12  # prefix lengths the published way is timed at, of T - 1
FULL_SIZE_ROWS = 271  # rows of GPT-Neo 125M in fp32 that 4 GB of cache hold
Texts = list[tuple[int, ...]]


def rows() -> list[Row]:
    small = build("scratch_neo", vocab_size=4096)
    found = [_against_generation(small, ma) for ma in (0.8, 0.5, 0.3)]
    return [row for pair in found for row in pair] + _against_an_epoch()


def build(name: str, **fields: Any) -> Any:
    """Return a model's architecture with random weights."""
    overrides = ["dataset=toy_tofu", f"model={name}"]
    fields = dict(compose_config(overrides[::-1]).model.architecture or {}) | fields
    torch.manual_seed(0)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.requires_grad_(False)
    return model


@torch.no_grad()
def texts_of(model: Any, count: int, ma: float) -> Texts:
    """Return texts of which the model guesses each next token right with probability `ma`."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary, (count, 1), generator=generator)
    cache, new = None, ids
    for _ in range(T - 1):
        out = model(input_ids=new, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        other = torch.randint(vocabulary, (count, 1), generator=generator)
        known = torch.rand(count, 1, generator=generator) < ma
        new = torch.where(known, out.logits[:, -1:].argmax(-1), other)
        ids = torch.cat([ids, new], dim=1)
    return [tuple(row) for row in ids.tolist()]


def _against_generation(model: Any, ma: float) -> list[Row]:
    """Compare calls and time; equal continuations are checked on the sampled prefixes."""
    texts = texts_of(model, B, ma)
    width = model.config.num_layers * 2 * model.config.hidden_size * 4
    calls: list[int] = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    start = time.perf_counter()
    answers = greedy_continuations(
        model, texts, lambda ids, guess: wanted(ids, guess, N), FULL_SIZE_ROWS * T * width
    )
    ours = time.perf_counter() - start
    num_calls = len(calls)
    handle.remove()
    known = [continuations(ids, answer) for ids, answer in zip(texts, answers, strict=True)]
    published = _one_generation_per_prefix(model, texts, known)
    published_calls = sum(T - t for t in range(1, T)) + T - 1
    limits = {0.8: (30, 10), 0.5: (0, 5), 0.3: (0, 0)}[ma]
    hit = sum(_hits(ids, answer) for ids, answer in zip(texts, answers, strict=True)) / B
    detail = f"MA {hit:.2f}, {B} x {T} tokens, 4 layers x 256, {FULL_SIZE_ROWS} rows a chunk"
    return [
        _at_least(
            f"EL + MA at {ma}: calls of the model saved",
            published_calls / num_calls,
            limits[0],
            f"{detail}: {num_calls} calls, one generation per prefix {published_calls}",
        ),
        _at_least(
            f"EL + MA at {ma}: time saved",
            published / ours,
            limits[1],
            f"{detail}: {ours:.1f} s, published {published:.0f} s from {SAMPLED} of {T - 1} prefix lengths",
        ),
    ]


def _hits(ids: tuple[int, ...], answer: Greedy) -> float:
    right = [guess == token for guess, token in zip(answer.argmax, ids[1:], strict=True)]
    return sum(right) / len(right)


def _one_generation_per_prefix(model: Any, texts: Texts, known: list[dict[int, Any]]) -> float:
    """Return the seconds of one generation per prefix, from some prefix lengths evenly spaced."""
    ids = torch.tensor(texts)
    seconds = 0.0
    sampled = [1 + round(k * (T - 2) / (SAMPLED - 1)) for k in range(SAMPLED)]
    for t in sampled:
        start = time.perf_counter()
        options = {"do_sample": False, "eos_token_id": [], "pad_token_id": 0}
        whole = model.generate(
            ids[:, :t],
            attention_mask=torch.ones(B, t, dtype=torch.int64),
            generation_config=GenerationConfig(max_length=T, **options),
        )
        model.generate(
            ids[:, :t],
            attention_mask=torch.ones(B, t, dtype=torch.int64),
            generation_config=GenerationConfig(max_new_tokens=1, **options),
        )
        seconds += time.perf_counter() - start
        for row, continuation in enumerate(whole[:, t:].tolist()):
            if t in known[row] and tuple(continuation) != known[row][t]:
                raise AssertionError(f"text {row} continues differently after {t} tokens")
    return seconds * (T - 1) / SAMPLED


def _against_an_epoch() -> list[Row]:
    """Time a check whose answer is MA, and one update, on the 125M shape at an eighth of the sets."""
    model = build("gpt_neo_125m", weights=None)
    texts = texts_of(model, B // 8, 0.3)
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"]
    adapter = Adapter(rank=8, alpha=16, dropout=0.0, targets=targets)
    layers = adapter.layers(model, 0)
    adapted, _ = attach(model, {f.name: f for f in vanilla(layers)}, adapter)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-9)
    batch = pad([Sequence(ids, ids) for ids in texts])
    objective = Objective(ihl, ("forget", "retain"))

    def epoch() -> None:
        optimizer.zero_grad()
        objective(adapted, {"forget": batch, "retain": batch}).total.backward()
        optimizer.step()

    def by_ma() -> None:
        assert check(adapted, texts, Thresholds(N, 0.05, 0.25)).decided_by == "ma"

    seconds = {}
    for name, way in {"epoch": epoch, "check": by_ma}.items():
        way()
        start = time.perf_counter()
        way()
        seconds[name] = time.perf_counter() - start
    start = time.perf_counter()
    assert check(adapted, texts, Thresholds(N, 1.1, 1.1)).decided_by == "both"
    both = time.perf_counter() - start
    detail = f"GPT-Neo-125M shape, {B // 8} + {B // 8} texts of {T} tokens, MA .3"
    return [
        Row(
            "stop rule, MA not yet below",
            seconds["check"] / seconds["epoch"],
            0.2,
            "of an epoch",
            f"{detail}: {seconds['check']:.2f} s, epoch {seconds['epoch']:.2f} s",
        ),
        Row(
            "stop rule, MA below: EL decoded to the end",
            both / seconds["epoch"],
            float("inf"),
            "epochs, once a successful run",
            f"{detail}: {both:.1f} s",
        ),
    ]


def _at_least(name: str, value: float, limit: float, detail: str) -> Row:
    """Return a row whose value must not be smaller than its limit; 0: no limit is named."""
    return Row(name, value, limit, "x", detail, at_least=True)
