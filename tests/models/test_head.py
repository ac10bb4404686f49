"""Only models whose logits are what their head gives can be scored by the head alone."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.errors import ModelError
from loku_exp.models.head import VOCABULARY_BLOCK, check_head, logits_of
from tests.helpers import tiny_model

SIZES = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


def small(kind: str, **fields) -> nn.Module:
    config = AutoConfig.for_model(kind, **(SIZES | fields))
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_that_give_their_heads_logits_pass(dtype):
    for model in (tiny_model(bias=True), small("llama"), small("phi")):
        check_head(model.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 30.0}),
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.0625}),
    ],
)
def test_models_that_change_them_afterwards_are_refused(kind, fields, dtype):
    with pytest.raises(ModelError, match=f"models of type {kind} change their logits after"):
        check_head(small(kind, **fields).to(dtype))


def test_a_loaded_model_is_checked(tmp_path):
    from loku_exp.config.compose import compose_config
    from loku_exp.models.load import load_model

    small("granite", logits_scaling=8.0).save_pretrained(tmp_path)
    model = compose_config(["experiment=quick"]).model
    with pytest.raises(ModelError, match="granite"):
        load_model(model, str(tmp_path), torch.device("cpu"))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("vocabulary", [7, VOCABULARY_BLOCK, 2 * VOCABULARY_BLOCK + 5])
def test_blocks_of_the_vocabulary_change_rounding_alone(vocabulary, bias):
    torch.manual_seed(0)
    head = nn.Linear(48, vocabulary, bias=bias)
    hidden = torch.randn(33, 48)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(hidden, head), head(hidden), rtol=1e-6, atol=1e-6)
