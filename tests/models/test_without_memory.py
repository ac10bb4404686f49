"""A model without memory shows whether it changes its logits behind the head."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.models.without_memory import changes_logits
from tests.models.architectures import ARCHITECTURES, BLOCKS, GROUPED, VOCABULARY

CHANGED = {
    "cohere": GROUPED,
    "granite": GROUPED | {"logits_scaling": 8.0},
    "gemma2": GROUPED | {"head_dim": 8, "final_logit_softcapping": 30.0},
}
AS_THEY_ARE = {
    "granite": GROUPED,  # a factor of 1
    "gemma2": GROUPED | {"head_dim": 8, "final_logit_softcapping": None},
    "gpt2": ARCHITECTURES["gpt2"],
    "gpt_neo": ARCHITECTURES["gpt_neo"],
    "phi": ARCHITECTURES["phi"],
    "stablelm": BLOCKS,
    "mixtral": ARCHITECTURES["mixtral"],
}


@pytest.mark.parametrize(
    ("kind", "fields", "changed"),
    [*((k, f, True) for k, f in CHANGED.items()), *((k, f, False) for k, f in AS_THEY_ARE.items())],
)
def test_a_factor_or_a_cap_is_seen_without_values(kind, fields, changed):
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=0, eos_token_id=0, **fields
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    attention = model.config._attn_implementation
    assert changes_logits(model) is changed
    assert model.config._attn_implementation == attention
