"""Prompts continued together give what transformers' own generation gives, with fewer rows a step."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from loku_exp.evaluation.lm import together
from loku_exp.evaluation.lm.generation import continued
from loku_exp.evaluation.lm.together import continued_together
from tests.evaluation.tdec.memorising import random_text, untrained
from tests.helpers import inference_of, plain_greedy

PROMPTS = [random_text(length, seed) for seed, length in enumerate((7, 3, 12, 1, 5, 9, 5))]
BUDGETS = [9, 14, 0, 20, 1, 11, 12]


def model_of(kind):
    """In float64, so that no order of summation flips a choice."""
    return untrained(kind).double()


def plain(model, end_of_text):
    return continued(model, PROMPTS, BUDGETS, end_of_text=end_of_text, padding=0)


def likely_ends(model):
    """Tokens that end some answers early, and not all at once."""
    going_on = plain(model, None)
    return sorted({answer[len(answer) // 2] for answer in going_on if len(answer) > 3})


@pytest.fixture
def steps(monkeypatch):
    """Rows of every step of one token."""
    rows = []

    def watch(model):
        forward = model.forward

        def counting(*args, **kwargs):
            if kwargs.get("past_key_values") is not None and kwargs["input_ids"].shape[1] == 1:
                rows.append(len(kwargs["input_ids"]))
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", counting)
        return rows

    return watch


@pytest.mark.parametrize("cache_bytes", [1, 60_000, 10**9])
@pytest.mark.parametrize("kind", ["gpt_neo", "llama", "phi"])
def test_together_equals_plain(kind, cache_bytes, monkeypatch):
    monkeypatch.setattr(together, "CPU_CACHE_BYTES", cache_bytes)
    model = model_of(kind)
    for end_of_text in (None, *likely_ends(model)):
        expected = plain(model, end_of_text)
        assert continued_together(model, PROMPTS, BUDGETS, end_of_text=end_of_text) == expected
    assert len({len(answer) for answer in expected}) > 2


def test_rows_that_have_ended_are_dropped(steps):
    model = model_of("llama")
    rows = steps(model)
    continued_together(model, PROMPTS, BUDGETS, end_of_text=None)
    assert (
        rows[0] == len(PROMPTS) - 1
    )  # whether a cached beginning goes on as it did; one has no budget
    wanted = sum(max(0, budget - 1) for budget in BUDGETS)
    assert wanted <= sum(rows[1:]) < 1.25 * wanted
    assert max(rows[1:]) < len(PROMPTS)


def test_nothing_is_asked_where_nothing_is_wanted(steps):
    model = model_of("llama")
    rows = steps(model)
    assert continued_together(model, PROMPTS, [0] * len(PROMPTS), end_of_text=None) == [
        [] for _ in PROMPTS
    ]
    assert rows == []


def test_a_model_with_a_state_in_place_of_a_cache_goes_the_plain_way():
    torch.manual_seed(0)
    model = MambaForCausalLM(
        MambaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=2, state_size=4)
    ).eval()
    assert continued_together(model, PROMPTS, BUDGETS, end_of_text=None) is None


def test_a_model_that_does_not_go_on_from_its_cache_goes_the_plain_way(monkeypatch):
    model = model_of("llama")
    expected = plain(model, None)
    monkeypatch.setattr(together, "aligns", lambda *_: False)
    assert continued_together(model, PROMPTS, BUDGETS, end_of_text=None) is None
    assert inference_of(model).continued(PROMPTS, BUDGETS, None) == expected


STATES = {
    "rwkv": {"attention_hidden_size": 16, "context_length": 64},  # takes no mask
    "lfm2": {"intermediate_size": 16, "num_key_value_heads": 2, "full_attn_idxs": []},
    "qwen3_next": {
        "layer_types": ["linear_attention"] * 2, "num_key_value_heads": 2, "head_dim": 8,
        "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 4,
        "linear_value_head_dim": 4, "num_experts": 2, "num_experts_per_tok": 1,
        "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_of_models_with_a_state_alone_each_prompt_goes_on_as_by_itself(kind):
    """Masked tokens before a text change what RWKV says; of the others no cache knows its length."""
    own = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **own, **STATES[kind])
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    expected = [plain_greedy(model, prompt, n) for prompt, n in zip(PROMPTS, BUDGETS, strict=True)]
    assert inference_of(model).continued(PROMPTS, BUDGETS, None) == expected
    assert len({tuple(answer) for answer in expected}) > 3
