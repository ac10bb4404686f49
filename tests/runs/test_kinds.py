"""Whole runs of every kind: other methods, losses, weights and bases, and what ends them early."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.config.groups import conf_dir
from loku_exp.errors import ConfigError, TrainingError, UserError
from loku_exp.methods import shipping
from loku_exp.results import files as results
from loku_exp.run import run
from tests.runs.running import QUICK


@pytest.mark.slow
def test_full_fine_tuning_trains_all_weights_at_its_own_rate(begin):
    folder = begin("lora=none")
    record = results.read(folder)
    assert "-full-" in folder.name
    assert record.init is None
    assert max(record.training["learning_rate"]) <= 5e-4
    assert (folder / "model/model.safetensors").is_file()
    assert record.cost["trainable_parameters"] > 50_000


@pytest.mark.slow
@pytest.mark.parametrize("lora", ["lora", "none"])
def test_training_under_autocast_ships_what_was_evaluated(begin, lora):
    record = results.read(begin("training.autocast=bfloat16", f"lora={lora}"))
    assert record.training["reload_difference"] < 1e-3


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_an_adapter_that_is_not_folded_is_not_shipped(begin, monkeypatch, dtype):
    def unfolded(model, factors, adapter, folder):
        model.save_pretrained(str(folder))

    monkeypatch.setattr(shipping, "fold", unfolded)
    with pytest.raises(TrainingError, match="does not give the logits of the model in memory"):
        begin(f"model.dtype={dtype}", "evaluation.curve=none", "model.weights=random")


@pytest.mark.slow
@pytest.mark.parametrize("loss", [path.stem for path in sorted((conf_dir() / "loss").glob("*"))])
def test_every_loss_runs(begin, loss):
    record = results.read(begin(f"loss={loss}", "init=vanilla", "evaluation.curve=none"))
    without = ("ga", "undial", "ce_u", "masc")  # as published
    assert ("retain_loss" in record.training) == (loss not in without)
    assert record.protocol["examples_per_update"] == [8, 0 if loss == "ga" else 8]


@pytest.mark.slow
@pytest.mark.parametrize("autocast", ["none", "bfloat16"])
def test_a_loss_that_compares_begins_at_the_target_and_leaves_it(begin, autocast):
    """With FILA, too, whose base is not the target's; under autocast the two were once the same."""
    changes = ["loss=npo", "loss.retain_term=kl", f"training.autocast={autocast}"]
    training = results.read(begin(*changes, "evaluation.curve=none")).training
    assert training["forget_loss"][0] == pytest.approx(2 * math.log(2) / 0.1, rel=1e-3)
    assert training["forget_loss"][-1] < 0.9 * training["forget_loss"][0]
    assert training["retain_loss"][0] == pytest.approx(0, abs=1e-4)
    assert training["retain_loss"][-1] > 0.01


@pytest.mark.slow
def test_released_fila_runs_at_the_micro_batch_of_its_readme(begin):
    record = results.read(
        begin("init=fila_official", "init.fisher_micro_batch=2", "evaluation.curve=none")
    )
    assert record.init["name"] == "fila_official"
    assert record.init["fisher_micro_batch"] == 2


@pytest.mark.slow
def test_without_a_limit_no_update_is_clipped(begin):
    changes = ["training.max_grad_norm=null", "model.finetuning.max_grad_norm=null"]
    record = results.read(begin(*changes, "evaluation.curve=none"))
    assert record.training["clipped_share"] == 0
    assert max(record.training["grad_norm"]) > 1


@pytest.mark.slow
def test_what_the_released_script_reports_stands_beside_the_end(begin):
    """2 updates an epoch for 2 epochs are 5 updates, of which the released script would report the 4th."""
    sizes = ["training.batch_size=16", "training.micro_batch_size=16"]
    record = results.read(begin(*sizes, "evaluation.report_at=released"))
    assert [point.step for point in record.curve] == [0, 2, 4, 5]
    assert list(record.models) == ["target", "unlearned@4", "unlearned", "reference"]
    then, end = record.models["unlearned@4"], record.models["unlearned"]
    assert (then.role, then.derived_from, then.reference) == ("unlearned", "target", "reference")
    assert then.metrics.items() >= record.curve[2].metrics.items()
    assert then.metrics.keys() == end.metrics.keys() >= {"forget_rouge", "model_utility"}
    assert then.judgement is not None
    whole = results.read(begin("evaluation.report_at=released"))
    assert "unlearned@10" not in whole.models  # the end is that update


def test_evaluation_only(begin):
    folder = begin("unlearn=false")
    record = results.read(folder)
    assert record.models.keys() == {"target", "reference"}
    assert record.curve == []
    assert not (folder / "adapter").exists()


def test_without_reference_forget_quality_is_absent(begin):
    record = results.read(begin("reference.source=none", "evaluation.curve=none"))
    assert "forget_quality" not in record.models["unlearned"].metrics
    assert "no reference" in record.judgement.sentence


def test_random_weights_are_marked(begin):
    record = results.read(begin("model.weights=random", "evaluation.curve=none"))
    assert record.models["target"].weights == "random"
    assert "RANDOM" in record.run.label
    assert "reference" not in record.models


@pytest.mark.slow
def test_target_and_reference_from_folders(begin, shared_cache):
    base = json.loads((begin() / "adapter/manifest.json").read_text())["recipe"]["base"]
    record = results.read(
        begin(
            f"target.path={base}",
            "reference.source=path",
            f"reference.path={base}",
            "evaluation.curve=none",
        )
    )
    assert record.models["target"].weights == record.models["reference"].weights == "pretrained"
    assert record.models["target"].metrics["forget_quality"] == 1.0
    assert record.models["target"].metrics["forget_ks"] == 0.0


def test_target_that_does_not_know_the_forget_set_is_refused(begin):
    with pytest.raises(
        ConfigError, match=r"target\.min_known=1\.0 \(the threshold of dataset toy_tofu\)"
    ):
        begin("target.min_known=1.0")


def test_loss_that_is_not_finite_stops_and_keeps_the_last_snapshot(begin, tmp_path, monkeypatch):
    import loku_exp.losses.builtin as objectives

    whole = objectives.ihl
    calls = []

    def breaking(forget, retain, *, retain_term, retain_weight):
        calls.append(1)
        terms = whole(forget, retain, retain_weight=retain_weight)
        return terms if len(calls) <= 8 else type(terms)(terms.forget * float("nan"), terms.retain)

    monkeypatch.setattr(objectives, "ihl", breaking)
    with pytest.raises(TrainingError, match="the loss is nan at update 8"):
        begin("seed=9")
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.glob("snapshots/*")] == ["step-00005"]
    assert "Traceback" in (folder / "run.log").read_text()


def test_a_loss_may_compare_with_the_target_in_full_fine_tuning(begin, monkeypatch):
    import loku_exp.losses.builtin as objectives
    from loku_exp.losses.scores import LossTerms

    def divergence(forget, retain, *, retain_term, retain_weight):
        ratio = forget.logprobs() - forget.reference.logprobs()
        return LossTerms(ratio.mean())

    monkeypatch.setattr(objectives, "ihl", divergence)
    record = results.read(begin("lora=none", "seed=7", "evaluation.curve=none"))
    losses = record.training["forget_loss"]
    assert losses[0] == pytest.approx(0, abs=1e-5)  # nothing has moved yet
    assert losses[-1] < -0.01


def test_loss_that_reaches_no_adapter_is_refused(begin, monkeypatch):
    import loku_exp.losses.builtin as objectives
    from loku_exp.losses.scores import LossTerms

    def constant(forget, retain, *, retain_term, retain_weight):
        return LossTerms(0 * forget.logprobs().sum())

    monkeypatch.setattr(objectives, "ihl", constant)
    with pytest.raises(TrainingError, match="adapter matrices got no gradient at the first update"):
        begin("seed=8")


def test_mistakes_leave_no_folder(begin, tmp_path):
    for overrides in (
        ["model.lora_targets.all=[q_proj,fc9]"],
        ["init.num_retain=100000"],
        ["lora.rank=65"],
    ):
        with pytest.raises(UserError):
            begin(*overrides, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_places_that_cannot_be_written_are_refused(begin, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output_dir=.*file is not a folder that can be written"):
        begin(output=tmp_path / "file")
    with pytest.raises(UserError, match="cache_dir"):
        run(compose_config([*QUICK, f"cache_dir={tmp_path}/file/x", f"output_dir={tmp_path}"]))


@pytest.mark.parametrize("key", ["output_dir", "cache_dir"])
def test_places_that_cannot_be_are_named_with_their_key(tmp_path, key):
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, reason in (
        ("nowhere", "No such file or directory"),
        ("nowhere/below", "No such file or directory"),
        ("circle", "Too many levels of symbolic links"),
        ("n" * 300, "File name too long"),
        ("x/" + "n" * 300, "File name too long"),
    ):
        places = {"output_dir": tmp_path / "out", "cache_dir": tmp_path / "cache"}
        places[key] = tmp_path / name
        with pytest.raises(UserError) as error:
            run(compose_config([*QUICK, *(f"{k}={v}" for k, v in places.items())]))
        (line,) = str(error.value).splitlines()
        assert line.startswith(f"{key}={places[key]}: ")
        assert line.endswith(f"({reason}); name another one: {key}=DIR")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "nowhere"]


def test_weights_trained_whole_are_fp32_while_they_train(shared_cache, tmp_path):
    """At the official rates an update of a bf16 weight rounds away, so nearly none would move."""
    from loku_exp.models.load import build_model, linear_layers
    from loku_exp.runtime.cache import Cache
    from loku_exp.runtime.seeds import derive
    from loku_exp.stages.finetuning import finetune
    from loku_exp.stages.inputs import load_inputs
    from loku_exp.stages.machine import on_this_machine

    overrides = [*QUICK, "model.dtype=bfloat16", "model.finetuning.learning_rate=2e-5"]
    config = on_this_machine(compose_config([*overrides, f"cache_dir={shared_cache}"]))
    inputs = load_inputs(config, Cache(config.cache_dir))
    folder = tmp_path / "model"
    finetune("target", config, inputs, folder, tmp_path / "unfinished", position=0)
    seed = derive(config.target.seed, "target", "weights")
    before = linear_layers(build_model(config.model, inputs.tokenizer, seed, torch.device("cpu")))
    after = linear_layers(AutoModelForCausalLM.from_pretrained(folder))
    moved = [(before[name].weight != after[name].weight).float().mean() for name in before]
    assert {layer.weight.dtype for layer in after.values()} == {torch.bfloat16}
    assert torch.stack(moved).mean() > 0.9


@pytest.mark.slow
def test_full_fine_tuning_of_a_bf16_model_trains_fp32_weights(begin):
    folder = begin("lora=none", "model.dtype=bfloat16", "evaluation.curve=reduced")
    step = load_file(folder / "snapshots/step-00010/model.safetensors")
    shipped = load_file(folder / "model/model.safetensors")
    assert {tensor.dtype for tensor in step.values()} == {torch.float32}
    assert {tensor.dtype for tensor in shipped.values()} == {torch.bfloat16}
    assert all(torch.equal(step[name].bfloat16(), shipped[name]) for name in step)
