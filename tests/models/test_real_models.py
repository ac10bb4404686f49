"""Whole runs on shrunken models of the three real architectures, with their real tokenizers and TOFU.

The folders are laid out like the hub's, so what works here works with the real weights.
"""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError, ModelError
from loku_exp.evaluation.tofu.published_log import read_log
from loku_exp.models.load import linear_layers
from loku_exp.results import files as results
from loku_exp.run import run

SMALL: dict[str, dict] = {
    "phi": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "llama2": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
    "gpt_neo_125m": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
    },
}
TOKENIZERS = {"phi": "phi-1_5", "llama2": "llama-2", "gpt_neo_125m": "gpt2"}


def hub_folder(place: Path, name: str, data: Path, seed: int = 0) -> Path:
    """A folder as the hub has it: configuration, safetensors, tokenizer; few layers, random weights."""
    model = compose_config([f"model={name}", "dataset=tofu"]).model
    fields = dict(model.architecture) | SMALL[name]
    torch.manual_seed(seed)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    dtype = getattr(torch, model.dtype)
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(place)
    for file in (data / "tokenizers" / TOKENIZERS[name]).iterdir():
        shutil.copy(file, place / file.name)
    return place


def overrides(name: str, base: Path, data: Path, tmp_path: Path) -> list[str]:
    return [
        f"model={name}",
        "dataset=tofu",
        f"model.path={base}",
        f"target.path={base}",
        "target.min_known=0",
        f"dataset.path={data / 'tofu'}",
        "dataset.forget_split=forget01",
        "evaluation.rows=4",
        "evaluation.max_tokens=80",
        f"output_dir={tmp_path / 'out'}",
        f"cache_dir={tmp_path / 'cache'}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "init"), [("phi", "fila_official"), ("llama2", "fila"), ("gpt_neo_125m", "fila")]
)
def test_whole_run_from_a_hub_folder(loku_data, tmp_path, name, init):
    base = hub_folder(tmp_path / "base", name, loku_data)
    other = hub_folder(tmp_path / "other", name, loku_data, seed=1)
    folder = run(
        compose_config(
            [
                *overrides(name, base, loku_data, tmp_path),
                f"init={init}",
                "lora.rank=4",
                "reference.source=path",
                f"reference.path={other}",
            ]
        )
    )
    record = results.read(folder)
    assert record.protocol["updates"] == 6
    assert record.protocol["examples_per_update"] == [32, 32]
    assert [point.step for point in record.curve] == [0, 1, 2, 3, 4, 5, 6]
    assert record.models["unlearned"].weights == "pretrained"
    assert record.run.label == ""  # neither toy nor from scratch
    targets = compose_config([f"model={name}", "dataset=tofu"]).model.lora_targets["all"]
    layers = linear_layers(AutoModelForCausalLM.from_pretrained(base))
    assert {layer.split(".")[-1] for layer in layers} == set(targets)
    adapter = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert set(adapter["target_modules"]) == set(targets)
    assert adapter["r"] == 8


def published_log(data: Path, split: str, place: Path, rows: int) -> Path:
    """The first rows of a published log."""
    name = f"ft_epoch5_lr2e-05_phi_{split}_wd0.01.eval_log_aggregated.json"
    content = json.loads((data / "tofu_eval_logs" / name).read_text())
    for part in content.values():
        for metric, values in part.items():
            part[metric] = {str(row): values[str(row)] for row in range(rows)}
    (place / f"{split}.json").write_text(json.dumps(content))
    return place / f"{split}.json"


@pytest.mark.slow
def test_published_log_as_reference(loku_data, tmp_path):
    base = hub_folder(tmp_path / "base", "phi", loku_data)
    arguments = [*overrides("phi", base, loku_data, tmp_path), "reference.source=log"]
    log = published_log(loku_data, "retain99", tmp_path, rows=6)
    arguments.append(f"reference.path={log}")
    with pytest.raises(
        ConfigError, match=r"6 rows of 'forget', .* evaluates 4; set evaluation\.rows=6"
    ):
        run(compose_config(arguments))
    arguments += ["evaluation.rows=6", "evaluation.curve=none"]
    other = published_log(loku_data, "retain90", tmp_path, rows=6)
    with pytest.raises(ConfigError, match="is of other data: row 0 of 'forget' asks"):
        run(compose_config([*arguments, f"reference.path={other}"]))
    record = results.read(run(compose_config(arguments)))
    assert record.models["reference"].weights == "published_log"
    rows = read_log(log)["forget"]
    expected = sum(math.exp(-row.loss) for row in rows) / 6
    assert record.models["reference"].metrics["forget_prob"] == pytest.approx(expected)
    assert record.models["unlearned"].metrics["forget_ks"] > 0
    assert record.protocol["rows"] == dict.fromkeys(("forget", "retain", "authors", "facts"), 6)


@pytest.mark.slow
def test_published_log_of_another_template_is_refused(loku_data, tmp_path):
    base = hub_folder(tmp_path / "base", "gpt_neo_125m", loku_data)
    log = (
        loku_data / "tofu_eval_logs/ft_epoch5_lr2e-05_phi_retain99_wd0.01.eval_log_aggregated.json"
    )
    arguments = overrides("gpt_neo_125m", base, loku_data, tmp_path)
    arguments += ["evaluation.rows=300", "reference.source=log", f"reference.path='{log}'"]
    with pytest.raises(ConfigError, match="is of other data: row 0 of 'forget' asks"):
        run(compose_config(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama2"])
def test_target_and_reference_are_fine_tuned_from_a_folder(loku_data, tmp_path, name):
    """The official fine-tuning, cut to its first updates."""
    base = hub_folder(tmp_path / "base", name, loku_data)
    arguments = [
        *overrides(name, base, loku_data, tmp_path),
        "target.path=null",
        "model.finetuning.epochs=0.01",
        "model.finetuning.micro_batch_size=8",
        "model.finetuning.warmup_epochs=0",
        "model.finetuning.learning_rate=1e-3",
        "evaluation.curve=none",
    ]
    record = results.read(run(compose_config(arguments)))
    assert record.models["target"].weights == record.models["reference"].weights == "finetuned_here"
    assert record.models["target"].metrics != record.models["reference"].metrics


def test_folder_without_weights_says_what_is_missing(loku_data, tmp_path):
    base = hub_folder(tmp_path / "base", "phi", loku_data)
    (base / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"cannot load (model|target)\.path=.*no weights"):
        run(compose_config([*overrides("phi", base, loku_data, tmp_path), "reference.source=none"]))


def test_adapter_folder_is_recognised(loku_data, tmp_path):
    base = hub_folder(tmp_path / "base", "phi", loku_data)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    arguments = overrides("phi", base, loku_data, tmp_path)
    arguments += [f"target.path={adapter}", "reference.source=none"]
    with pytest.raises(ConfigError, match="is a PEFT adapter, not a model; merge it"):
        run(compose_config(arguments))


def test_unknown_model_says_how_to_go_on_without_a_hub(loku_data, tmp_path):
    arguments = ["model=phi", f"dataset.path={loku_data / 'tofu'}", f"cache_dir={tmp_path}"]
    with pytest.raises(
        ModelError, match=r"cannot load model\.path=microsoft/phi-1_5.*model\.path=DIR"
    ):
        run(compose_config(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama2"])
def test_random_weights_need_a_tokenizer_only(loku_data, tmp_path, name):
    small = [
        f"model.architecture.{key}={json.dumps(value)}".replace('"', "")
        for key, value in SMALL[name].items()
    ]
    arguments = overrides(name, tmp_path, loku_data, tmp_path)
    arguments += [
        "model.weights=random",
        f"model.tokenizer={loku_data / 'tokenizers' / TOKENIZERS[name]}",
    ]
    record = results.read(run(compose_config([*arguments, *small, "evaluation.curve=none"])))
    assert record.models["target"].weights == "random"
    assert record.run.label == "RANDOM weights, for timing only"
