"""Models that are a yaml alone: their size is the published one, and a shrunken copy is read rightly."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.config.groups import options_of
from loku_exp.models.head import check_head
from loku_exp.models.load import from_architecture, linear_layers, load_model
from tests.helpers import TOKENIZER

PARAMETERS = {  # as the hub's pages count them; a tied head once
    "gpt_neo_125m": 125_198_592,
    "phi": 1_418_270_720,
    "llama2": 6_738_415_616,
    "llama32_1b": 1_235_814_400,
    "llama32_3b": 3_212_749_824,
    "llama31_8b": 8_030_261_248,
    "qwen25_0_5b": 494_032_768,
    "qwen25_1_5b": 1_543_714_304,
    "qwen25_3b": 3_085_938_688,
    "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976,
    "gemma_2b": 2_506_172_416,
    "smollm2": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1_7b": 1_711_376_384,
}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
UNTIED = ("llama2", "llama31_8b")
NEW = [name for name in PARAMETERS if name.startswith(("llama", "qwen", "gemma"))]


def described(name):
    random = ["model.weights=random", "model.tokenizer=DIR"]
    return compose_config([f"model={name}", "dataset=tofu", *random]).model


@pytest.mark.parametrize(("name", "published"), PARAMETERS.items())
def test_the_yaml_describes_the_published_model(name, published):
    with torch.device("meta"):
        built = from_architecture(described(name), TOKENIZER)
    assert sum(p.numel() for p in built.parameters()) == published


def test_every_model_with_a_shape_is_counted():
    made_here = {"hf", "toy_neo", "scratch_neo"}
    larger = {"gpt_neo_1_3b", "gpt_neo_2_7b"}  # whose layers are those of the first
    assert set(options_of("model", None)) == {*PARAMETERS, *made_here, *larger}


@pytest.mark.parametrize("name", NEW)
def test_a_shrunken_copy_is_loaded_adapted_and_read_from_its_own_head(name, tmp_path):
    model = described(name)
    fields = dict(model.architecture) | SMALL
    fields |= {"num_key_value_heads": 2, "vocab_size": 300, "head_dim": 8}
    fields |= {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    loaded = load_model(model, str(tmp_path), torch.device("cpu"), dtype="float32")
    check_head(loaded)
    layers = linear_layers(loaded)
    kinds = {layer.rpartition(".")[2] for layer in layers}
    assert kinds == set(model.lora_targets["all"])
    assert len(layers) == 2 * len(kinds)
    head, embedding = loaded.get_output_embeddings(), loaded.get_input_embeddings()
    assert (head.weight is embedding.weight) == (name not in UNTIED)
