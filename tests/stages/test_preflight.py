"""What is wrong with a run is said before its folder is made and anything is trained."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, GPTNeoConfig, GPTNeoForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.data import tofu
from loku_exp.errors import ConfigError, ModelError
from loku_exp.evaluation.tasks import RowTask
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.run import run
from loku_exp.runtime.cache import Cache
from loku_exp.stages import inputs, preflight
from loku_exp.stages.inputs import load_inputs
from loku_exp.stages.preflight import prepare
from tests.helpers import random_sequence, tiny_records
from tests.methods.tiny import ADAPTER, records

SMALL = ["dataset=toy_tofu", "dataset.num_authors=4", "dataset.num_forget=1"]


@pytest.fixture
def place(tmp_path):
    """A folder laid out like the hub's, with a tokenizer and few weights."""
    folder = tmp_path / "base"
    config = GPTNeoConfig(
        vocab_size=300, hidden_size=16, num_layers=2, num_heads=2, window_size=8,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=256,
    )  # fmt: skip
    GPTNeoForCausalLM(config).save_pretrained(folder)
    train_tokenizer(["a question and its answer"], 300).save_pretrained(folder)
    return folder


def refused(tmp_path, *overrides, error=ConfigError, match):
    places = [f"output_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
    with pytest.raises(error, match=match):
        run(compose_config([*overrides, *places]))
    assert not (tmp_path / "out").exists()


def own(place, *overrides):
    sizes = ["evaluation.max_tokens=200", *SMALL]
    model = ["model=hf", f"model.path={place}"]
    return [*model, "reference.source=none", *sizes, *overrides]


def test_reference_is_not_trained_from_a_copy_of_the_target(place, tmp_path):
    shutil.copytree(place, tmp_path / "copy")
    (tmp_path / "copy/README.md").write_text("a copy")
    again = own(place, f"target.path={tmp_path}/copy", "reference.source=train")
    refused(tmp_path, *again, match="also the base in model.path")


def test_weights_that_a_control_takes_are_looked_at_as_all_others(place, tmp_path):
    """A tensor that was not there was random, and the control was judged with it."""
    shutil.copytree(place, tmp_path / "cut")
    tensors = load_file(tmp_path / "cut/model.safetensors")
    tensors.pop("transformer.h.0.mlp.c_fc.weight")
    save_file(tensors, tmp_path / "cut/model.safetensors", {"format": "pt"})
    control = ["method=control", "method.kind=weights", f"method.path={tmp_path}/cut"]
    said = r"method\.path=.*cut: 1 tensor of the architecture in config.json missing: .*c_fc"
    refused(tmp_path, *own(place, *control), match=said)


def test_an_attack_that_cannot_be_made_of_this_model_is_refused_before_the_unlearning(tmp_path):
    """It ended after the unlearning, with lora.rank in its message, which was not to blame."""
    attack = ["attacks=[relearn]", "attacks.relearn.rank=1000"]
    refused(tmp_path, *SMALL, *attack, match=r"^attacks\.relearn\.rank=1000: the smallest layer")


def test_trainings_of_no_update_are_refused(tmp_path):
    short = ["training.epochs=0.01", "model.finetuning.epochs=0.01"]
    refused(tmp_path, *SMALL, *short, match=r"model\.finetuning\.epochs=0\.01 over .*less than one")
    refused(tmp_path, *SMALL, *short, match=r"training\.epochs=0\.01 over .*less than one")


def test_a_methods_layers_are_those_of_the_part_that_reads(monkeypatch):
    pictured = Gemma3Config(text_config={"num_hidden_layers": 34})
    monkeypatch.setattr(preflight, "architecture", lambda *_: pictured)
    monkeypatch.setattr(preflight, "_own_problems", lambda _, **given: [given["layers"]])
    inputs = SimpleNamespace(tokenizer=[], records=None)
    assert preflight._method_problems(compose_config(SMALL), inputs, None) == [34]


@pytest.mark.parametrize(
    ("init", "retain", "said"),
    [
        ("fila_official", 3, "init=fila_official: it measures on as many retain as forget examples, 4,"),
        ("vila", 9, "init.group_size=4: a variance needs more than one group, and it is measured on 4"),
        ("rila", 0, "init=rila: it tells the forget from the retain set, and the dataset has 0 retain"),
        ("rila", 9, "lora.rank=5: 4 forget examples span no more than 4 directions, and init=rila takes"),
        ("fila", 3, None), ("corda", 3, None), ("vanilla", 3, None),
    ],
)  # fmt: skip
def test_what_an_init_has_too_few_examples_for_is_said(init, retain, said):
    config = compose_config([*SMALL, f"init={init}"])
    inputs = SimpleNamespace(records=records(4, retain))
    found = preflight._init_problems(config, inputs, replace(ADAPTER, rank=5))
    assert [text[: len(said or "")] for text in found] == ([said] if said else [])


@pytest.mark.parametrize(
    ("loss", "skip", "reduction", "said"),
    [
        ("ce_u", 7, "update", "loss.skip=7: a forget row has 6 labelled tokens"),
        ("ce_u", 6, "update", None), ("ce_u", 7, "micro_batch", None), ("undial", None, "update", None),
        ("ce_u", 8, "update", "loss.skip=8: the longest forget row has 8 labelled tokens, so nothing"),
        ("ce_u", 9, "micro_batch", "loss.skip=9: the longest forget row has 8 labelled tokens"),
    ],
)  # fmt: skip
def test_rows_shorter_than_what_a_loss_leaves_out_are_said(loss, skip, reduction, said):
    """Beside a row of 5 labels one of 1, skip 4: the update's mean would be -1/2 of the one token kept.

    With every token left out, all weights were trained on nothing to the end.
    """
    knobs = [f"loss.skip={skip}"] if skip else []
    config = compose_config([*SMALL, f"loss={loss}", *knobs, f"training.reduction={reduction}"])
    rows = records()
    rows.forget[1] = replace(rows.forget[1], answer=random_sequence(7, 0, 61, 0))
    found = preflight._loss_problems(config, SimpleNamespace(records=rows))
    assert [text[: len(said or "")] for text in found] == ([said] if said else [])


def test_a_micro_batch_of_the_fisher_that_nothing_reads_is_refused():
    """Per example there are none: the run was the same, under another name."""
    inputs = SimpleNamespace(records=records(4, 9))
    asked = [*SMALL, "init=fila", "init.fisher_micro_batch=2"]
    (said,) = preflight._init_problems(compose_config(asked), inputs, ADAPTER)
    assert said.startswith(
        "init.fisher_micro_batch=2: init.estimator=per_example takes one example"
    )
    for read in (["init.estimator=batch_mean"], ["init=fila_official"]):
        assert preflight._init_problems(compose_config([*asked, *read]), inputs, ADAPTER) == []


@pytest.mark.parametrize("loss", ["undial", "ce_u", "masc"])
def test_a_divergence_without_weight_is_refused(loss):
    """These have no retain term by default: the run was the same, under another name."""
    inputs = SimpleNamespace(records=records())
    asked = [*SMALL, f"loss={loss}", "loss.retain_term=kl"]
    (said,) = preflight._loss_problems(compose_config(asked), inputs)
    assert said.startswith(f"loss.retain_term=kl: loss={loss} has it with weight 0")
    assert preflight._loss_problems(compose_config([*asked, "loss.retain_weight=1"]), inputs) == []


@pytest.mark.parametrize("device", ["foo", "cuda:99"])
def test_device_that_is_not_there_is_refused(tmp_path, device):
    refused(tmp_path, *SMALL, f"device={device}", error=ModelError, match=f"device={device}: not")


def test_lengths_are_checked(tmp_path):
    over = "evaluation.max_tokens=5000 exceeds the model's context of 256 tokens"
    refused(tmp_path, *SMALL, "evaluation.max_tokens=5000", match=over)
    under = r"max_tokens=8 counts prompt and generation together, .* longest prompt alone has"
    refused(tmp_path, *SMALL, "evaluation.max_tokens=8", match=under)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["target.path=./typo"], r"target\.path=\./typo: no such folder"),
        (["target.path=some/hub_id"], r"cannot load target\.path=some/hub_id.*target\.path=null"),
        (["reference.source=path", "reference.path=/no/x"], r"reference\.path=/no/x: no such"),
        (["target.path=EMPTY"], r"target\.path=.*empty: no config\.json there"),
        (["target.path=BARE"], r"cannot load target\.path=.*bare: no weights in it"),
    ],
)
def test_models_that_cannot_be_had_are_named_by_their_key(place, tmp_path, overrides, match):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    shutil.copy(place / "config.json", tmp_path / "bare")
    places = {"EMPTY": str(tmp_path / "empty"), "BARE": str(tmp_path / "bare")}
    for name, folder in places.items():
        overrides = [override.replace(name, folder) for override in overrides]
    refused(tmp_path, *own(place, *overrides), error=(ModelError, ConfigError), match=match)


def test_target_is_not_looked_for_where_weights_are_random(place, tmp_path):
    from loku_exp.runtime.cache import Cache
    from loku_exp.stages.identity import run_id
    from loku_exp.stages.inputs import load_inputs

    tokenizer = [f"model.tokenizer={place}", "model.architecture.vocab_size=300"]
    overrides = ["model=llama2", "model.weights=random", *SMALL, *tokenizer]
    ids = []
    for target in ("target.path=some/hub_id", "target.path=another/hub_id"):
        config = compose_config([*overrides, target])
        ids.append(run_id(config, load_inputs(config, Cache(tmp_path / "cache"))))
    assert ids[0] == ids[1]


def test_a_limit_that_cuts_nothing_is_said(tmp_path, caplog):
    said = "evaluation.limit=3 cuts nothing: no abilities are asked"
    for overrides, times in ((["evaluation.limit=3"], 1), ([], 0)):
        caplog.clear()
        load_inputs(compose_config([*SMALL, *overrides]), Cache(tmp_path))
        assert caplog.text.count(said) == times


REMOTE = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_reaches_the_adapter(place, tmp_path):
    from loku_exp.runtime.cache import Cache
    from loku_exp.stages.inputs import load_inputs
    from loku_exp.stages.unlearn import plan_adapter

    (place / "own_model.py").write_text(REMOTE)
    content = {
        "model_type": "own_llama", "vocab_size": 300, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "auto_map": {"AutoConfig": "own_model.OwnConfig", "AutoModelForCausalLM": "own_model.OwnModel"},
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(content))
    config = compose_config(own(place, "model.trust_remote_code=true"))
    inputs = load_inputs(config, Cache(tmp_path / "cache"))
    assert plan_adapter(config, inputs) is not None


def test_data_model_and_weights_are_said_together(place, tmp_path):
    shutil.copytree(place, tmp_path / "other")
    (tmp_path / "other/model.safetensors").write_bytes(b"cut off")
    for file in place.glob("tokenizer*"):
        file.unlink()
    (tmp_path / "tofu").mkdir()
    for name in tofu._splits("forget01"):
        (tmp_path / f"tofu/{name}.json").write_text("{,}\n")
    data = ["dataset=tofu", "dataset.forget_split=forget01", f"dataset.path={tmp_path}/tofu"]
    model = ["model=hf", f"model.path={place}", "reference.source=none"]
    with pytest.raises(ConfigError) as error:
        run(
            compose_config(
                [*data, *model, f"target.path={tmp_path}/other", f"output_dir={tmp_path}/out"]
            )
        )
    lines = str(error.value).splitlines()
    assert ["not JSON" in lines[0], "no tokenizer" in lines[1], "cut off" in lines[2]] == [True] * 3
    assert len(lines) == 3


def test_folders_that_are_not_there_are_named_with_every_other_mistake():
    wrong = ["dataset=tofu", "dataset.path=/nowhere", "model=hf", "model.path=/none", "lora.rank=0"]
    with pytest.raises(ConfigError) as error:
        compose_config([*wrong, "reference.source=path", "reference.path=/nor/this"])
    assert error.value.problems == [
        "lora.rank=0: should be greater than or equal to 1",
        "model.path=/none: no such folder",
        "reference.path=/nor/this: no such folder",
        "dataset.path=/nowhere: no such folder, and not a hub id like owner/name",
    ]


def test_a_retain_set_smaller_than_the_forget_set_is_said_before(tmp_path):
    few = ["dataset.num_authors=2", "dataset.num_forget=1", "dataset=toy_tofu"]
    config = compose_config([*few, f"cache_dir={tmp_path}/cache"])
    inputs = load_inputs(config, Cache(tmp_path / "cache"))
    records = replace(inputs.records, retain=inputs.records.retain[:1])
    with pytest.raises(
        ConfigError, match=r"retain examples, the dataset has 1; set init\.num_retain"
    ):
        prepare(config, replace(inputs, records=records))


def test_a_task_named_as_another_one_is_refused(tmp_path, monkeypatch):
    """lm-eval asked one of them, and its numbers stood under the name of both."""
    mine = [RowTask("retain", tiny_records().forget, lambda row: [], {})]
    monkeypatch.setattr(inputs, "standard_tasks", lambda names, place: mine)
    refused(tmp_path, *SMALL, match="two tasks or groups are named 'retain'")
