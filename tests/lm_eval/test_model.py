"""What ``--model loku`` takes: adapters of this bench, other people's words, and what is refused."""

import json
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPTNeoConfig, GPTNeoForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.data.records import Sequence
from loku_exp.errors import ConfigError, ModelError
from loku_exp.export.exporting import export
from loku_exp.lm_eval.model import LokuLM, _around
from loku_exp.results import files as results
from loku_exp.run import run
from loku_exp.runtime.cache import Cache
from loku_exp.stages.inputs import load_inputs
from tests.helpers import instances, plain_scores
from tests.models import architectures

QUICK = ["experiment=quick", "evaluation.curve=none", "init=fila"]


def set_of_toy(place, name, split, knobs):
    content = {
        "task": name,
        "dataset_name": "toy_tofu",
        "test_split": split,
        "dataset_kwargs": knobs,
    }
    text = yaml.safe_dump(content) + "class: !function loku_exp.lm_eval.sets.EvaluationSet\n"
    (place / f"{name}.yaml").write_text(text)


@pytest.mark.slow
def test_a_fila_adapter_on_its_untouched_target_has_the_runs_numbers(
    metrics, tmp_path, shared_cache
):
    config = compose_config([*QUICK, f"output_dir={tmp_path / 'out'}", f"cache_dir={shared_cache}"])
    folder = run(config)
    base = json.loads((folder / "adapter/manifest.json").read_text())["recipe"]["base"]
    export(folder, tmp_path / "adapter")
    load_inputs(config, Cache(config.cache_dir)).tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tasks").mkdir()
    for name, split in (("toy_forget", "forget"), ("toy_utility", "model_utility")):
        set_of_toy(tmp_path / "tasks", name, split, config.dataset.knobs)
    words = {"pretrained": base, "tokenizer": str(tmp_path / "tokenizer"), "model": "toy_neo"}
    given = {f"evaluation.{name}": config.evaluation.knobs[name] for name in ("rows", "max_tokens")}
    record = results.read(folder)
    for model, more, tolerance in (
        ("target", {}, 1e-9),
        ("unlearned", {"peft": str(tmp_path / "adapter")}, 1e-4),
    ):
        found = metrics(
            ["toy_forget", "toy_utility"], words | more, given, tasks_in=tmp_path / "tasks"
        )
        ours = record.models[model].metrics
        for name in ("forget", "retain", "authors", "facts"):
            task = "toy_forget" if name == "forget" else f"toy_tofu_{name}"
            for metric in ("prob", "rouge", "truth_ratio"):
                expected = pytest.approx(ours[f"{name}_{metric}"], rel=tolerance)
                assert found[task][metric] == expected, (model, name, metric)
        assert found["toy_utility"]["model_utility"] == pytest.approx(
            ours["model_utility"], rel=tolerance
        )
    changed = record.models["unlearned"].metrics["forget_prob"]
    assert abs(record.models["target"].metrics["forget_prob"] - changed) > 1e-3


def test_stock_requests_and_chat_templates(folder):
    lm = LokuLM(str(folder), dtype="float32", batch_size=3, device="cuda:0")
    context, rest = "who asks?", " a2"
    (found,) = lm.loglikelihood(instances("loglikelihood", [(context, rest)]))
    sequence = lm._load().labelled_text(context, rest)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    logprobs, greedy = plain_scores(model, sequence)
    assert found == (pytest.approx(sum(logprobs), rel=1e-5), all(greedy))
    lm.tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}!"
    assert lm.apply_chat_template([{"role": "user", "content": "q"}]) == "<q>!"
    assert lm.chat_template(True) == lm.tokenizer.chat_template
    assert "/" not in lm.tokenizer_name


@pytest.mark.parametrize("name", ["Müller", "模型", "a b", "a\\b", "it's"])
def test_a_folder_of_any_name_is_found(folder, tmp_path, name):
    """An umlaut was refused, with advice for another command line; a backslash became two."""
    (tmp_path / name).symlink_to(folder)
    LokuLM.create_from_arg_obj({"pretrained": str(tmp_path / name)}, {"device": "cuda:0"})


def test_batch_size_counts_texts_of_full_length(folder):
    sizes = [LokuLM(str(folder), batch_size=size)._load().batch_tokens for size in (1, "auto", 3)]
    assert sizes == [16384, 16384, 3 * 1024]


def write_config(place, **changes):
    file = place / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def adapter(place, targets, width=16):
    config = GPTNeoConfig(
        vocab_size=300, hidden_size=width, num_layers=2, num_heads=2,
        attention_types=[[["global", "local"], 1]],
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    lora = LoraConfig(r=2, target_modules=targets)
    get_peft_model(GPTNeoForCausalLM(config), lora).save_pretrained(place)
    write_config(place, base_model_name_or_path="somebody/else")
    return str(place)


def test_an_adapter_of_another_model_is_refused_before_weights_are_read(
    folder, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("loku_exp.models.load.load_model", None)
    LokuLM(str(folder), peft=adapter(tmp_path / "same", ["q_proj"]))
    assert "was made for somebody/else, and is put on" in caplog.text
    wide = adapter(tmp_path / "wide", ["q_proj"], width=32)
    with pytest.raises(
        ConfigError,
        match=r"wide is not an adapter of pretrained=.*lora_A.*\(2, 32\) in it, .*\(2, 16\)",
    ):
        LokuLM(str(folder), peft=wide)
    write_config(tmp_path / "same", target_modules=["q_proj", "k_proj"])
    with pytest.raises(ConfigError, match=r"k_proj.* is absent in it, and would be of shape"):
        LokuLM(str(folder), peft=str(tmp_path / "same"))
    write_config(tmp_path / "same", target_modules=["query_key_value"])
    with pytest.raises(ConfigError, match=r"does not go on pretrained=.*query_key_value"):
        LokuLM(str(folder), peft=str(tmp_path / "same"))


CAUSAL = {"task_type": "CAUSAL_LM"}
HEAD = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], **CAUSAL)
SAVED_HEAD = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], **CAUSAL)


def adapted(base, config, place):
    """Write an adapter that does something; return the model with it."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), deepcopy(config))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    model.eval().save_pretrained(place)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), place).eval()


@pytest.mark.parametrize(
    ("config", "tied", "said"),
    [
        (HEAD, False, r"adapts the output head, .* merge it into its base"),
        (HEAD, True, r"adapts the output head, .* train one without it"),
        (SAVED_HEAD, True, r"adapts the output head, .* merge it into its base"),
        (PromptTuningConfig(num_virtual_tokens=3, **CAUSAL), False, "a PROMPT_TUNING adapter puts"),
        (PrefixTuningConfig(num_virtual_tokens=3, **CAUSAL), False, "a PREFIX_TUNING adapter puts"),
    ],
)
def test_an_adapter_that_scores_would_be_wrong_with_is_refused(tmp_path, config, tied, said):
    """Scores come from the head's own matrix, and by the place of a token: both were silently others."""
    base = architectures.folder("llama", tmp_path / "base", tie_word_embeddings=tied)
    model = adapted(base, config, tmp_path / "adapter")
    with pytest.raises(ConfigError, match=said):
        LokuLM(str(base), peft=str(tmp_path / "adapter"), dtype="float32")
    with pytest.raises(ModelError, match=said):
        _around(SimpleNamespace(model=model))


def test_a_head_that_an_adapter_brings_whole_is_scored(tmp_path):
    base = architectures.folder("llama", tmp_path / "base", tie_word_embeddings=False)
    model = adapted(base, SAVED_HEAD, tmp_path / "adapter")
    lm = LokuLM(str(base), peft=str(tmp_path / "adapter"), dtype="float32")
    text = Sequence(tuple(range(5, 25)), tuple(range(5, 25)))
    (found,) = lm.token_scores(instances("token_scores", [("", text)]))
    assert found.logprobs == pytest.approx(plain_scores(model, text)[0], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"typ": "float32"}, "typ=float32: --model loku has no such word; did you mean 'dtype'"),
        ({"peft": "nowhere"}, "peft=nowhere: no adapter that can be read"),
        ({"pretrained": None}, "pretrained=...: not given"),
        ({"pretrained": "./nowhere"}, "^pretrained=./nowhere: no such folder"),
        ({"model": "phy"}, "did you mean 'phi'"),
        ({"dtype": "float33"}, "dtype=float33"),
        ({"max_length": 9999}, "max_length=9999 is more than the 1024 tokens"),
    ],
)  # fmt: skip
def test_wrong_words_are_named(folder, words, said):
    with pytest.raises(ConfigError, match=said):
        LokuLM.create_from_arg_obj({"pretrained": str(folder)} | words, {"device": "cuda:0"})
