"""Continuations decoded together equal those of every prefix decoded alone."""

import copy
from functools import cache

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from loku_exp.evaluation.lm import wavefront
from loku_exp.evaluation.lm.wavefront import greedy_continuations
from loku_exp.evaluation.tdec.metrics import (
    continuations,
    extraction_likelihood,
    memorisation_accuracy,
    wanted,
)
from tests.evaluation.tdec.memorising import (
    accuracy,
    decode_all,
    ended,
    likelihood,
    memorise,
    random_text,
    untrained,
)

LENGTHS = {0: 40, 11: 33, 2: 40, 3: 12, 4: 9, 5: 2, 6: 25}
TEXTS = [random_text(length, seed) for seed, length in LENGTHS.items()]
KINDS = ["gpt_neo", "llama", "phi"]
STATES = ["random", "half", "whole"]
HUGE = 10**12


@cache
def knowing(kind, state):
    """A model in float64, so that no order of summation flips a choice."""
    model = untrained(kind)
    if state == "half":
        memorise(model, TEXTS, 0.35)
        assert accuracy(model, TEXTS) < 0.9
    elif state == "whole":
        memorise(model, TEXTS, 1.0)
    return model.double()


@cache
def brute_force(kind, state):
    return [decode_all(knowing(kind, state), ids) for ids in TEXTS]


def smallest(n):
    return lambda ids, argmax: wanted(ids, argmax, n)


def everything(ids, argmax):
    return list(range(1, len(ids)))


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the ids of every forward."""
    shapes = []

    def watch(model):
        forward = model.forward

        def counting(*args, **kwargs):
            shapes.append(tuple(kwargs["input_ids"].shape))
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", counting)
        return shapes

    return watch


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_decoding_every_prefix(kind, state):
    model, expected = knowing(kind, state), brute_force(kind, state)
    answers = greedy_continuations(model, TEXTS, smallest(1), HUGE)
    decoded = 0
    for ids, greedy, said in zip(TEXTS, answers, expected, strict=True):
        decoded += len(greedy.decoded)
        assert greedy.argmax == [said[t][0] for t in range(1, len(ids))]
        known = continuations(ids, greedy)
        assert known == said
        for n in (1, 3, 10):
            if len(ids) > n:
                assert extraction_likelihood(ids, known, n) == pytest.approx(
                    likelihood(ids, said, n), abs=1e-12
                )
        with torch.no_grad():
            logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        plain = [logprobs[t - 1, ids[t]].item() for t in range(1, len(ids))]
        assert greedy.logprobs == pytest.approx(plain, abs=1e-5)  # GPT-Neo attends in float32
        assert greedy.loss == pytest.approx(-sum(plain) / len(plain), abs=1e-5)
    scores = [memorisation_accuracy(ids, g.argmax) for ids, g in zip(TEXTS, answers, strict=True)]
    total = sum(len(ids) - 1 for ids in TEXTS)
    assert (decoded == 0) == (state == "whole") == (min(scores) == 1)
    if state == "half":
        assert 0.1 < decoded / total < 0.8


@pytest.mark.parametrize("state", ["random", "half"])
@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_larger_ngram_leaves_out_is_not_needed(kind, n, state):
    answers = greedy_continuations(knowing(kind, state), TEXTS, smallest(n), HUGE)
    for ids, greedy, said in zip(TEXTS, answers, brute_force(kind, state), strict=True):
        known = continuations(ids, greedy)
        assert known.items() <= said.items()
        assert set(range(1, len(ids) - n + 1)) <= set(known)
        if len(ids) <= n:
            assert greedy.decoded == []
        for larger in {n, 10}:
            if len(ids) > larger:
                assert extraction_likelihood(ids, known, larger) == pytest.approx(
                    likelihood(ids, said, larger), abs=1e-12
                )


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_all_prefixes_needs_no_inheriting(kind):
    answers = greedy_continuations(knowing(kind, "half"), TEXTS, everything, HUGE)
    for greedy, said in zip(answers, brute_force(kind, "half"), strict=True):
        assert greedy.decoded == [[t, *tokens] for t, tokens in said.items()]


@pytest.mark.parametrize("cache_bytes", [1, 150_000])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind, cache_bytes):
    model = knowing(kind, "half")
    whole = greedy_continuations(model, TEXTS, smallest(1), HUGE)
    chunked = greedy_continuations(model, TEXTS, smallest(1), cache_bytes)
    assert [g.decoded for g in chunked] == [g.decoded for g in whole]
    assert [g.argmax for g in chunked] == [g.argmax for g in whole]


def test_the_cache_of_a_chunk_stays_within_its_bytes(calls):
    """A row of the tiny Llama takes 2 layers x 2 x 2 heads x 4 numbers x 8 bytes x 40 positions."""
    model = copy.deepcopy(knowing("llama", "random"))
    shapes = calls(model)
    row = 2 * 2 * 2 * 4 * 8 * 40
    for rows in (8, 20):
        shapes.clear()
        greedy_continuations(model, TEXTS, everything, row * rows + row // 2)
        assert max(size for size, _ in shapes[1:]) == rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_changes_nothing(kind):
    model = knowing(kind, "half")
    together = greedy_continuations(model, TEXTS, smallest(1), HUGE)
    for ids, greedy in zip(TEXTS, together, strict=True):
        (alone,) = greedy_continuations(model, [ids], smallest(1), HUGE)
        assert (alone.argmax, alone.decoded) == (greedy.argmax, greedy.decoded)
        assert alone.logprobs == pytest.approx(greedy.logprobs, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_takes_at_most_a_call_a_position(kind, calls):
    model = copy.deepcopy(knowing(kind, "random"))
    shapes = calls(model)
    answers = greedy_continuations(model, TEXTS, smallest(1), HUGE)
    first = min(t for greedy in answers for t, *_ in greedy.decoded)
    assert shapes[0] == (len(TEXTS), 40)  # the teacher-forced pass
    assert shapes[1] == (len(TEXTS), 1)  # whether the cache can be gone on from
    assert len(shapes) - 2 == 40 - first - 1 <= 40 - 2
    assert all(width == 1 for _, width in shapes[1:])
    assert [rows for rows, _ in shapes[2:]] == sorted(rows for rows, _ in shapes[2:])
    shapes.clear()
    greedy_continuations(model, TEXTS, lambda ids, argmax: [], HUGE)
    assert len(shapes) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_way_says_the_same(kind, calls):
    model = copy.deepcopy(knowing(kind, "half"))
    fused = greedy_continuations(model, TEXTS, smallest(1), HUGE)
    shapes = calls(model)
    plain = greedy_continuations(model, TEXTS, smallest(1), HUGE, plain=True)
    assert [(g.argmax, g.decoded) for g in plain] == [(g.argmax, g.decoded) for g in fused]
    assert all(width > 1 for _, width in shapes)
    assert max(rows for rows, _ in shapes) == len(TEXTS)


@pytest.mark.parametrize("habit", ["forgets", "shifts", "refuses"])
def test_a_cache_that_cannot_be_gone_on_from_is_noticed(habit, calls, monkeypatch):
    """It keeps nothing, it miscounts positions, or it takes no cache at all."""
    model = copy.deepcopy(knowing("llama", "half"))
    expected = greedy_continuations(model, TEXTS, smallest(1), HUGE)
    forward = model.forward

    def other(*args, past_key_values=None, use_cache=None, **named):
        if past_key_values is None:
            return forward(*args, use_cache=False, **named)
        if habit == "refuses":
            raise TypeError("forward() got an unexpected keyword argument 'past_key_values'")
        if habit == "forgets":
            return forward(*args, use_cache=True, **named)
        past = past_key_values.get_seq_length()
        positions = torch.arange(past, past + named["input_ids"].shape[1])[None] + 3 * (past > 0)
        return forward(*args, past_key_values=past_key_values, position_ids=positions, **named)

    monkeypatch.setattr(model, "forward", other)
    found = greedy_continuations(model, TEXTS, smallest(1), HUGE)
    assert [(g.argmax, g.decoded) for g in found] == [(g.argmax, g.decoded) for g in expected]


def test_a_memorised_text_takes_one_forward(calls):
    model = copy.deepcopy(knowing("gpt_neo", "whole"))
    shapes = calls(model)
    greedy_continuations(model, TEXTS, smallest(1), HUGE)
    assert shapes == [(len(TEXTS), 40)]


# -- transformers' own generation ----------------------------------------------------------------


def options(total, end):
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=total,
        eos_token_id=[] if end is None else end,
        pad_token_id=0 if end is None else end,
    )


def generated_one_by_one(model, ids, end):
    said = {}
    for t in range(1, len(ids)):
        prompt = torch.tensor([ids[:t]])
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=options(len(ids) - t, end),
        )
        tokens = out[0, t:].tolist()
        said[t] = (*tokens, *[end] * (len(ids) - t - len(tokens)))
    return said


def generated_together(model, ids, end):
    """All prefixes in one left-padded batch, with the mask that generation derives positions from."""
    longest = len(ids) - 1
    prompts = torch.zeros(longest, longest, dtype=torch.int64)
    mask = torch.zeros_like(prompts)
    for t in range(1, len(ids)):
        prompts[t - 1, longest - t :] = torch.tensor(ids[:t])
        mask[t - 1, longest - t :] = 1
    out = model.generate(
        input_ids=prompts, attention_mask=mask, generation_config=options(longest, end)
    )[:, longest:].tolist()
    return {
        t: tuple((tokens + [end] * longest)[: len(ids) - t]) for t, tokens in enumerate(out, start=1)
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["continue", "stop"])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_generation_by_transformers(kind, mode):
    model, ids = knowing(kind, "half"), TEXTS[6]
    (greedy,) = greedy_continuations(model, [ids], smallest(1), HUGE)
    said = [token for tokens in continuations(ids, greedy).values() for token in tokens[:-2]]
    end = None if mode == "continue" else max(set(said), key=said.count)
    known = continuations(ids, greedy, end)
    assert known == generated_one_by_one(model, ids, end)
    assert (known == continuations(ids, greedy)) == (mode == "continue")
    if kind != "gpt_neo":  # its local window counts padding
        assert known == generated_together(model, ids, end)


@pytest.mark.parametrize("end", range(1, 8))
def test_stopping_is_cutting_what_goes_on(end):
    for ids, said in zip(TEXTS, brute_force("llama", "half"), strict=True):
        answers = greedy_continuations(knowing("llama", "half"), [ids], smallest(1), HUGE)
        known = continuations(ids, answers[0], end)
        assert known == {t: ended(tokens, end) for t, tokens in said.items()}


# -- wrapped models, low precision ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_an_adapter(kind):
    torch.manual_seed(3)
    base = copy.deepcopy(knowing(kind, "whole"))
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted = adapted.double().eval()
    texts = TEXTS[2:5]
    answers = greedy_continuations(adapted, texts, smallest(1), 150_000)
    expected = [decode_all(adapted, ids) for ids in texts]
    for ids, greedy, said in zip(texts, answers, expected, strict=True):
        assert continuations(ids, greedy) == said
    assert expected != brute_force(kind, "whole")[2:5]
    assert not any("keep" in str(hook) for hook in base.lm_head._forward_pre_hooks.values())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_the_model_are_left_alone(kind):
    model = copy.deepcopy(knowing(kind, "half"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    greedy_continuations(model, TEXTS, smallest(1), HUGE)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


def test_ids_beyond_what_low_precision_counts_exactly():
    """bfloat16 counts to 256; the argmax must not pass through it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1003, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, initializer_range=0.4,
    )  # fmt: skip
    model = LlamaForCausalLM(config).bfloat16().eval()
    ids = tuple(range(943, 1003))
    (greedy,) = wavefront.greedy_continuations(model, [ids], lambda *_: [], HUGE)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0, :-1].float().argmax(-1).tolist()
    assert greedy.argmax == expected
    assert any(token > 512 and token % 4 for token in expected)
