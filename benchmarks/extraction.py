"""EL and MA of 32 x 200 tokens beside slower ways to the same values, and the stop rule beside an epoch.

Published way (joeljang/knowledge-unlearning, ``models/Neo_Model.py``): for every prefix length from 199 to
1 one ``generate`` of the whole batch, for EL; one more token at every prefix, for MA. Plain fast way: only
prefixes whose next token is wrong, sorted by length, decoded in left-padded batches on the cache of one
teacher-forced pass, with transformers' own growing cache.

Texts are made with the model itself: each token is its argmax with a given probability, else a random
one, so that memorisation accuracy is that probability whatever the weights are.
"""

import time
from statistics import fmean
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GenerationConfig

from benchmarks.measure import Row, interleaved, seconds_of
from loku_exp.config.compose import compose_config
from loku_exp.data.batches import pad
from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm.wavefront import greedy_continuations, teacher_forced
from loku_exp.evaluation.tdec.metrics import (
    Greedy,
    continuations,
    extraction_likelihood,
    memorisation_accuracy,
    wanted,
)
from loku_exp.evaluation.tdec.stop_check import Thresholds, check_forgotten
from loku_exp.inits.vanilla import vanilla
from loku_exp.losses.builtin import ihl
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.models.activations import fuse_gelu
from loku_exp.training.trainer import Objective

B, T, N = 32, 200, 10
SAMPLED = 8  # prefix lengths the published way is timed at, of T - 1
FULL_SIZE_ROWS = 271  # whole rows of GPT-Neo 125M in fp32 that 4 GB of cache hold
SMALL: dict[str, Any] = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 512}
LAYERS = [[["global", "local"], 1]]
SHAPE = "2 layers x 64"
LIMITS = {0.8: (30, 10), 0.5: (0, 5)}  # of calls and time saved, by MA
FORGOTTEN = 0.3  # MA at the predecessor's threshold of GPT-Neo-125M
Texts = list[tuple[int, ...]]


def rows() -> list[Row]:
    small = build("scratch_neo", attention_types=LAYERS, **SMALL)
    found = []
    for ma in LIMITS:
        found += _against_generation(small, ma)
    return [*found, _against_left_padded(small), *_stop_rule()]


def build(name: str, *, ours: bool = True, **fields: Any) -> Any:
    """Return a model's architecture with random weights, computed as here or as transformers does."""
    overrides = ["dataset=toy_tofu", f"model={name}"]
    fields = dict(compose_config(overrides[::-1]).model.architecture or {}) | fields
    torch.manual_seed(0)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = AutoModelForCausalLM.from_config(config).eval()
    if ours:
        fuse_gelu(model)
    model.requires_grad_(False)
    return model


@torch.no_grad()
def texts_of(model: Any, count: int, ma: float, length: int = T) -> Texts:
    """Return texts of which the model guesses each next token right with probability `ma`."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary, (count, 1), generator=generator)
    cache, seen = None, 0
    for _ in range(length - 1):
        new = torch.randint(vocabulary, (count, 1), generator=generator)
        known = torch.rand(count, 1, generator=generator) < ma
        if known.any():
            out = model(input_ids=ids[:, seen:], past_key_values=cache, use_cache=True)
            cache, seen = out.past_key_values, ids.shape[1]
            new = torch.where(known, out.logits[:, -1:].argmax(-1), new)
        ids = torch.cat([ids, new], dim=1)
    return [tuple(row) for row in ids.tolist()]


def _against_generation(model: Any, ma: float) -> list[Row]:
    """Compare calls and time with the published way."""
    texts = texts_of(model, B, ma)
    calls: list[int] = []
    answers: list[Greedy] = []
    greedy_continuations(model, texts, lambda *_: [], 0)  # warms up
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    seconds = seconds_of(lambda: answers.extend(_aligned(model, texts)))
    handle.remove()
    known = [continuations(ids, answer) for ids, answer in zip(texts, answers, strict=True)]
    least_calls, least_time = LIMITS[ma]
    published = _one_generation_per_prefix(model, texts, known)
    published_calls = sum(T - t for t in range(1, T)) + T - 1
    detail = f"MA {_values(texts, answers)[0]:.2f}, {B} x {T} tokens, {SHAPE}"
    return [
        Row(
            f"EL + MA at {ma}: calls of the model saved",
            published_calls / len(calls),
            least_calls,
            "x",
            f"{detail}: {len(calls)} calls, one generation per prefix {published_calls}",
            at_least=True,
        ),
        Row(
            f"EL + MA at {ma}: time saved",
            published / seconds,
            least_time,
            "x",
            f"{detail}: {seconds:.1f} s, published {published:.0f} s, from {SAMPLED} of {T - 1} prefix "
            "lengths",
            at_least=True,
        ),
    ]


def _against_left_padded(model: Any) -> Row:
    """Compare time where most prefixes decode with the plain fast way, on half the texts and rows."""
    texts = texts_of(model, B // 2, FORGOTTEN)
    rows = FULL_SIZE_ROWS // 2  # so that a chunk's prefixes differ in length as with all texts
    answers: dict[str, list[Greedy]] = {}

    def ours() -> None:
        answers["ours"] = _aligned(model, texts, rows)

    def plain() -> None:
        answers["plain"] = left_padded(model, texts, rows)

    left_padded(model, texts[:1], rows)  # warms up
    seconds = interleaved({"ours": ours, "plain": plain}, repeats=1, warmed=True)
    pairs = zip(_values(texts, answers["ours"]), _values(texts, answers["plain"]), strict=True)
    if max(abs(one - two) for one, two in pairs) > 1e-3:
        raise AssertionError("the plain fast way gives other values")
    return Row(
        f"EL + MA at {FORGOTTEN}: time saved against left-padded batches",
        seconds["plain"] / seconds["ours"],
        1.5,
        "x",
        f"{len(texts)} x {T} tokens, {SHAPE}: {seconds['ours']:.1f} s, left-padded "
        f"{seconds['plain']:.1f} s in chunks of {rows} rows",
        at_least=True,
    )


def _aligned(model: Any, texts: Texts, rows: int = FULL_SIZE_ROWS) -> list[Greedy]:
    column = model.config.num_layers * 2 * model.config.hidden_size * 4
    return greedy_continuations(model, texts, _wanted, rows * T * column)


def _wanted(ids: tuple[int, ...], guess: list[int]) -> list[int]:
    return wanted(ids, guess, N)


def _values(texts: Texts, answers: list[Greedy]) -> tuple[float, float]:
    """Return mean MA and EL."""
    pairs = list(zip(texts, answers, strict=True))
    return (
        fmean(memorisation_accuracy(ids, answer.argmax) for ids, answer in pairs),
        fmean(extraction_likelihood(ids, continuations(ids, answer), N) for ids, answer in pairs),
    )


@torch.no_grad()
def left_padded(model: Any, texts: Texts, chunk_rows: int) -> list[Greedy]:
    """Decode wrong prefixes in left-padded batches, sorted by length, with a growing cache."""
    cache = DynamicCache()
    logprobs, argmax = teacher_forced(model, pad([Sequence(ids, ids) for ids in texts]), cache)
    rows = sorted((t, k) for k, ids in enumerate(texts) for t in _wanted(ids, argmax[k]))
    decoded: list[list[list[int]]] = [[] for _ in texts]
    for start in range(0, len(rows), chunk_rows):
        chunk = rows[start : start + chunk_rows]
        longest, steps = chunk[-1][0], T - chunk[0][0]
        mask = torch.tensor([[0] * (longest - t) + [1] * t for t, _ in chunk])
        past: Any = DynamicCache()
        layers: list[Any] = list(cache.layers)
        for number, layer in enumerate(layers):
            parts = []
            for part in (layer.keys, layer.values):
                _, heads, _, size = part.shape
                moved = part.new_zeros(len(chunk), heads, longest, size)
                for row, (t, text) in enumerate(chunk):
                    moved[row, :, longest - t :] = part[text, :, :t]
                parts.append(moved)
            past.update(*parts, number)
        new = torch.tensor([[argmax[text][t - 1]] for t, text in chunk])
        said = [new]
        positions = torch.tensor([[t] for t, _ in chunk])
        for step in range(steps - 1):
            mask = torch.cat([mask, mask.new_ones(len(chunk), 1)], 1)
            out = model(
                input_ids=new,
                attention_mask=mask,
                position_ids=positions + step,
                past_key_values=past,
                use_cache=True,
            )
            new = out.logits[:, -1:].argmax(-1)
            said.append(new)
        for (t, text), tokens in zip(chunk, torch.cat(said, 1).tolist(), strict=True):
            decoded[text].append([t, *tokens[: T - t]])
    return [Greedy(*parts) for parts in zip(logprobs, argmax, decoded, strict=True)]


def _one_generation_per_prefix(model: Any, texts: Texts, known: list[dict[int, Any]]) -> float:
    """Return the seconds of one generation per prefix, from some prefix lengths evenly spaced.

    A tie of two tokens may fall the other way in another batch shape, so one in a hundred continuations
    may differ.
    """
    ids = torch.tensor(texts)
    seconds, different = 0.0, 0
    sampled = [1 + round(k * (T - 2) / (SAMPLED - 1)) for k in range(SAMPLED)]
    for t in sampled:
        start = time.perf_counter()
        options = {"do_sample": False, "eos_token_id": [], "pad_token_id": 0}
        mask = torch.ones(B, t, dtype=torch.int64)
        for length in ({"max_length": T}, {"max_new_tokens": 1}):
            config = GenerationConfig(**length, **options)
            said = model.generate(ids[:, :t], attention_mask=mask, generation_config=config)
            if "max_length" in length:
                whole = said
        seconds += time.perf_counter() - start
        for row, continuation in enumerate(whole[:, t:].tolist()):
            different += t in known[row] and tuple(continuation) != known[row][t]
    if different > SAMPLED * B // 100:
        raise AssertionError(f"{different} continuations of {SAMPLED * B} differ")
    return seconds * (T - 1) / SAMPLED


def _stop_rule() -> list[Row]:
    """Time a check whose answer is MA beside an update of the 125M shape, and a whole check of a toy."""
    model = build("gpt_neo_125m")
    texts = texts_of(model, 1, FORGOTTEN)
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

    def by_ma() -> None:  # all texts are read before the answer, as at the last of the checks
        assert check_forgotten(adapted, texts, Thresholds(N, 0.05, 0.0)).decided_by == "ma"

    seconds = interleaved({"epoch": epoch, "check": by_ma}, repeats=2)
    toy = build("toy_neo", vocab_size=512)
    toy_texts = texts_of(toy, 8, 0.3, length=64)

    def whole() -> None:
        assert check_forgotten(toy, toy_texts, Thresholds(3, 1.1, 1.1)).decided_by == "both"

    toy_seconds = interleaved({"check": whole}, repeats=1)["check"]
    return [
        Row(
            f"stop rule at MA {FORGOTTEN}, by the threshold",
            seconds["check"] / seconds["epoch"],
            0.2,
            "of an epoch",
            f"GPT-Neo-125M shape, 1 + 1 of {B} + {B} texts of {T} tokens: {seconds['check']:.2f} s, epoch "
            f"{seconds['epoch']:.2f} s",
        ),
        Row("stop rule of the toy, EL decoded", toy_seconds, 2, "s", "8 x 64 tokens, MA .3"),
    ]
