"""What cannot be loaded is said in one line, and the way out it names is gone and works."""

import json
import re

import pytest
import torch

from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError, DataError, ModelError
from loku_exp.models.load import attention_of, load_model
from loku_exp.models.weights import problems
from loku_exp.runtime.cache import Cache
from loku_exp.stages.inputs import load_inputs
from tests.models.architectures import build, folder, settings, tokenizer

CPU = torch.device("cpu")
SMALL = ["dataset=toy_tofu", "dataset.num_authors=4", "dataset.num_forget=1"]


def materials(place, tmp_path, *overrides):
    """What every run does first, from the command line on."""
    own = ["model=hf", f"model.path={place}", "reference.source=none"]
    own += ["evaluation.max_tokens=200"]
    config = compose_config([*own, *SMALL, *overrides])
    return load_inputs(config, Cache(tmp_path / "cache"))


def advice(error, pattern):
    """The setting a message names; the message is one line."""
    (line,) = str(error.value).splitlines()
    found = re.search(pattern, line)
    assert found, line
    return found.group()


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_a_model_that_names_no_context_length(kind, tmp_path):
    place = folder(kind, tmp_path / "base")
    with pytest.raises(ModelError, match=f"this {kind} model names no context length") as error:
        materials(place, tmp_path)
    setting = advice(error, r"model\.context_length=\d+$")
    assert materials(place, tmp_path, setting).max_length == int(setting.split("=")[1])


@pytest.mark.parametrize(
    "field",
    [
        "max_position_embeddings",
        "n_positions",
        "n_ctx",
        "max_seq_len",
        "seq_length",
        "sliding_window",
    ],
)
def test_what_configurations_call_it(field, tmp_path):
    place = folder("bloom", tmp_path / "base")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {field: 323}))
    assert materials(place, tmp_path).max_length == 323
    shorter = ["model.context_length=320"]
    assert materials(place, tmp_path, *shorter).max_length == 320


def test_a_context_is_shortened_and_never_made_longer(tmp_path):
    place = folder("llama", tmp_path / "base", max_position_embeddings=300)
    assert materials(place, tmp_path).max_length == 300
    assert materials(place, tmp_path, "model.context_length=250").max_length == 250
    with pytest.raises(DataError, match="the model's context has 20"):
        materials(place, tmp_path, "model.context_length=20")
    with pytest.raises(ModelError, match=r"context_length=301 is more than the 300") as error:
        materials(place, tmp_path, "model.context_length=301")
    limit = advice(error, r"at most \d+").split()[-1]
    assert materials(place, tmp_path, f"model.context_length={limit}").max_length == 300


@pytest.mark.parametrize("kind", ["gpt_neo", "bloom", "mamba"])
def test_an_attention_the_architecture_has_not(kind, tmp_path):
    place = folder(kind, tmp_path / "base")
    match = rf"target\.path=.*base: model\.attention=sdpa does not go with this {kind} model"
    with pytest.raises(ModelError, match=match) as error:
        load_model(settings(place, attention="sdpa"), str(place), CPU, key="target.path")
    setting = advice(error, r"model\.attention=\w+$")
    assert load_model(settings(place, attention=setting.split("=")[1]), str(place), CPU)


def test_flash_attention_that_is_not_installed(tmp_path):
    from transformers.utils import is_flash_attn_2_available

    if is_flash_attn_2_available():
        pytest.skip("it is installed here")
    place = folder("llama", tmp_path / "base")
    own = settings(place, attention="flash_attention_2", dtype="bfloat16")
    (line,) = problems(str(place), "model.path", own, tokenizer())
    assert line.endswith("set model.attention=eager")
    with pytest.raises(ModelError, match=r"model\.attention=eager"):
        load_model(own, str(place), CPU)


REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model(tmp_path):
    place = folder("llama", tmp_path / "base", max_position_embeddings=300)
    (place / "own_model.py").write_text(REMOTE)
    config = json.loads((place / "config.json").read_text())
    code = {"AutoConfig": "own_model.OwnConfig", "AutoModelForCausalLM": "own_model.OwnModel"}
    content = config | {"model_type": "own_llama", "auto_map": code}
    (place / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"model\.path={place} brings code of its own") as error:
        materials(place, tmp_path)
    setting = advice(error, r"model\.trust_remote_code=\w+$")
    assert setting in problems(str(place), "target.path", settings(place), tokenizer())[0]
    assert materials(place, tmp_path, setting).max_length == 300
    trusting = settings(place, trust_remote_code=True)
    assert problems(str(place), "target.path", trusting, tokenizer()) == []
    assert type(load_model(trusting, str(place), CPU)).__name__ == "OwnModel"


OTHER_KINDS = {
    "bert": ({"num_hidden_layers": 1}, "reads a text in both directions"),
    "roberta": ({"num_hidden_layers": 1}, "reads a text in both directions"),
    "t5": ({"num_layers": 1}, "has an encoder and a decoder"),
    "vit": ({"num_hidden_layers": 1}, "has no head that predicts the next token"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_what_is_no_causal_language_model_says_so(kind, tmp_path):
    from transformers import AutoConfig

    fields, match = OTHER_KINDS[kind]
    AutoConfig.for_model(kind, **fields).save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    place = tmp_path / "base"
    match = (
        f"^model.path={place}: a {kind} model is not a causal language model, it {match}; [^\n]*$"
    )
    with pytest.raises(ModelError, match=match):
        materials(place, tmp_path)
    with pytest.raises(ModelError, match=match):
        load_model(settings(place), str(place), CPU)
    assert re.search(match, problems(str(place), "model.path", settings(place), tokenizer())[0])


def test_a_model_that_looks_ahead_is_found_out_by_what_it_does(tmp_path):
    """Its configuration says that it is a decoder, and its attention does not mask."""
    from transformers import AutoModelForCausalLM, BertConfig

    config = BertConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, is_decoder=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    assert load_model(settings(tmp_path), str(tmp_path), CPU)
    llama = build("llama")
    for layer in llama.model.layers:
        layer.self_attn.is_causal = False
    forward = llama.model.layers[0].self_attn.forward
    llama.model.layers[0].self_attn.forward = lambda **named: forward(
        **named | {"attention_mask": torch.zeros(1, 1, 4, 4)}
    )
    from loku_exp.models.head import check_head

    check_head(build("llama"))
    with pytest.raises(ModelError, match="this llama model sees what comes after a token"):
        check_head(llama)


def test_quantised_weights_are_refused(tmp_path):
    place = folder("llama", tmp_path / "base")
    config = json.loads((place / "config.json").read_text())
    quantised = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (place / "config.json").write_text(json.dumps(config | quantised))
    with pytest.raises(ModelError, match=r"model\.path=.*quantised \(gptq\)"):
        materials(place, tmp_path)
    assert "quantised (gptq)" in problems(str(place), "x", settings(place), tokenizer())[0]


def test_the_key_is_the_one_the_user_wrote(tmp_path):
    with pytest.raises(ConfigError, match=r"^model\.path=/nonexistent: no such folder$"):
        materials("/nonexistent", tmp_path)
    with pytest.raises(ModelError, match=r"^reference\.path=/nonexistent: no such folder$"):
        load_model(settings("x"), "/nonexistent", CPU, key="reference.path")
    place = folder("llama", tmp_path / "base")
    (place / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=rf"^cannot load model\.path={place} \(.*model_type"):
        materials(place, tmp_path)


@pytest.mark.parametrize(("kind", "taken"), [("gpt_neo", "eager"), ("llama", "sdpa")])
def test_an_attention_that_is_left_to_transformers_is_known_by_name(kind, taken, tmp_path):
    place = folder(kind, tmp_path / "base")
    for asked in ("auto", "eager"):
        own = settings(place, attention=asked)
        named = attention_of(own, tokenizer())
        assert named == (taken if asked == "auto" else asked)
        loaded = load_model(own, str(place), CPU)
        assert loaded.config._attn_implementation == named
