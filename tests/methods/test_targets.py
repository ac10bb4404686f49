"""Which layers get an adapter in architectures that do not make it easy."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.errors import ModelError
from loku_exp.methods.adapter import Adapter
from loku_exp.methods.targets import peft_names, target_layers
from tests.models.architectures import GROUPED, VOCABULARY

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
KINDS = {
    "llama4_text": GROUPED | {"num_local_experts": 2, "head_dim": 8, "intermediate_size_mlp": 24},
    "deepseek_v3": GROUPED
    | EXPERTS
    | {
        "num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "gemma3": {
        "text_config": GROUPED | {"head_dim": 8, "vocab_size": VOCABULARY},
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
    },
}  # fmt: skip


def built(kind, **fields):
    rest = {} if kind == "gemma3" else {"vocab_size": VOCABULARY, "pad_token_id": 0}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **KINDS[kind] | rest | fields)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_peft_adapts_the_layers_we_name_and_no_others(kind):
    model = built(kind)
    names = target_layers(model, ["all-linear"])
    assert names
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=peft_names(model, names)))
    found = {
        name.removeprefix("base_model.model.")
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A")
    }
    assert found == set(names)


def test_a_router_that_gives_more_than_its_product_is_no_linear_layer():
    assert not any("router" in name for name in target_layers(built("llama4_text"), ["all-linear"]))


def test_names_that_peft_takes_for_experts_are_left_out_and_refused_by_name():
    model = built("deepseek_v3")
    assert not any(name.endswith("gate_proj") for name in target_layers(model, ["all-linear"]))
    with pytest.raises(ModelError, match=r"'gate_proj': .* that peft takes for an expert's"):
        target_layers(model, ["gate_proj"])


def test_a_tower_that_sees_pictures_gets_no_adapter():
    assert not any("vision" in name for name in target_layers(built("gemma3"), ["all-linear"]))


def test_a_rank_above_a_layers_size_says_how_to_leave_it_out():
    adapter = Adapter(17, 17, 0.0, ["all-linear"])
    with pytest.raises(
        ModelError, match=r"set lora\.rank to \d+ or less, or leave it out: model\.lora_t"
    ):
        adapter.layers(built("llama4_text"), seed=0)
