"""Whole runs on a tiny world: files, sameness, resume, methods, and mistakes that cost little."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError, StorageError, TrainingError, UserError
from loku_exp.methods import gradient as method
from loku_exp.results import files as results
from loku_exp.run import run
from loku_exp.search.halves import metrics_of
from tests.helpers import killed_at_its_first_snapshot

QUICK = ["experiment=quick"]
FILES = ["config.yaml", "metrics.json", "examples.jsonl", "results.md", "curve.png", "run.log"]
FILES += ["done.json", "init.safetensors"]


@pytest.fixture
def start(tmp_path, shared_cache):
    """Run a configuration in this process; bases are shared by the whole session."""

    def start(*overrides: str, output: Path = tmp_path):
        places = [f"output_dir={output}", f"cache_dir={shared_cache}"]
        return run(compose_config([*QUICK, *places, *overrides]))

    return start


def command(*overrides: str, cache: Path, output: Path, **environment: str):
    arguments = [
        sys.executable,
        "-m",
        "loku_exp",
        *QUICK,
        f"output_dir={output}",
        f"cache_dir={cache}",
    ]
    return arguments + list(overrides), os.environ | environment


def same_numbers(one: Path, two: Path) -> None:
    """Compare records without what may differ: times, and where they ran."""
    records = [results.read(folder).model_dump() for folder in (one, two)]
    for record in records:
        del record["cost"]
        del record["run"]["started"]
    assert records[0] == records[1]
    assert (one / "examples.jsonl").read_text() == (two / "examples.jsonl").read_text()


def test_a_run_leaves_everything_promised(start, capsys):
    folder = start()
    assert folder.name.startswith("toy_neo-toy_tofu-ihl-fila-r8-")
    for name in FILES:
        assert (folder / name).stat().st_size > 0, name
    record = results.read(folder)
    assert record.models.keys() == {"target", "reference", "unlearned"}
    assert record.run.toy
    assert "TOY" in record.run.label
    assert record.protocol["updates"] == 10
    assert record.protocol["examples_per_update"] == [8, 8]
    assert len(record.training["forget_loss"]) == len(record.training["retain_loss"]) == 10
    assert 0 <= record.training["clipped_share"] <= 1
    assert record.training["reload_difference"] < 1e-3
    assert [point.step for point in record.curve] == [0, 5, 10]
    assert record.curve[-1].metrics == record.models["unlearned"].metrics
    assert 0 < record.init["share_of_weight_norm"] < 1
    assert record.init["epsilon_dominates"] in (True, False)
    assert record.cost["flops"]["training"] > 0
    assert "model_utility" in record.models["target"].metrics
    assert "forget_quality" in record.models["unlearned"].metrics
    assert "forget_quality" not in record.models["reference"].metrics
    shown = capsys.readouterr().out
    assert "verdict:" in shown
    assert "TOY data" in (folder / "results.md").read_text()
    examples = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    assert {row["model"] for row in examples} == {"target", "reference", "unlearned"}
    sets = record.protocol["rows"]
    assert len(examples) == 3 * sum(sets.values())
    assert {"row", "group", "tokens", "loss", "log_ratio", "generation", "question"} <= examples[
        0
    ].keys()


def test_the_adapter_is_loaded_by_plain_peft_on_the_untouched_base(start):
    folder = start()
    base = json.loads((folder / "adapter/manifest.json").read_text())["recipe"]["base"]
    model = AutoModelForCausalLM.from_pretrained(base)
    untouched = {name: p.clone() for name, p in model.named_parameters()}
    plain = PeftModel.from_pretrained(model, str(folder / "adapter"))
    assert plain.peft_config["default"].r == 16  # rank 8, folded with its start
    for name, parameter in plain.get_base_model().named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, untouched[name.replace(".base_layer", "")])


def test_a_finished_run_is_shown_not_repeated(start, capsys):
    folder = start()
    stamp = (folder / "metrics.json").stat().st_mtime_ns
    capsys.readouterr()
    assert start() == folder
    assert (folder / "metrics.json").stat().st_mtime_ns == stamp
    assert "verdict:" in capsys.readouterr().out


def test_force_runs_again_beside_it(start):
    folder = start()
    again = start("force=true")
    assert again == folder.with_name(folder.name + "-r2")
    same_numbers(folder, again)


@pytest.mark.parametrize("init", ["vanilla", "fila"])
def test_resumed_equals_uninterrupted(start, tmp_path, init):
    whole = start(f"init={init}", output=tmp_path / "whole")
    with killed_at_its_first_snapshot():
        start(f"init={init}", output=tmp_path / "killed")
    (folder,) = (tmp_path / "killed").iterdir()
    assert sorted(path.name for path in folder.glob("snapshots/*")) == ["step-00005"]
    assert not (folder / "done.json").exists()
    assert start(f"init={init}", output=tmp_path / "killed") == folder
    for step in ("step-00005", "step-00010"):
        file = f"snapshots/{step}/adapter_model.safetensors"
        one, two = load_file(whole / file), load_file(folder / file)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    same_numbers(whole, folder)


def test_optimiser_state_is_kept_in_the_newest_snapshot_only(start):
    folder = start()
    states = [path.parent.name for path in folder.glob("snapshots/*/optimizer.pt")]
    assert states == ["step-00010"]
    assert not list(folder.glob("**/training_args.bin"))
    assert not (folder / ".staging").exists()


def test_full_fine_tuning_trains_all_weights_at_its_own_rate(start):
    folder = start("lora=none")
    record = results.read(folder)
    assert "-full-" in folder.name
    assert record.init is None
    assert max(record.training["learning_rate"]) <= 5e-4
    assert (folder / "model/model.safetensors").is_file()
    assert record.cost["trainable_parameters"] > 50_000


@pytest.mark.parametrize("lora", ["lora", "none"])
def test_training_under_autocast_ships_what_was_evaluated(start, lora):
    record = results.read(start("training.autocast=bfloat16", f"lora={lora}"))
    assert record.training["reload_difference"] < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_that_is_not_folded_is_not_shipped(start, monkeypatch, dtype):
    def unfolded(model, factors, adapter, folder):
        model.save_pretrained(str(folder))

    monkeypatch.setattr(method, "fold", unfolded)
    with pytest.raises(TrainingError, match="does not give the logits of the model in memory"):
        start(f"model.dtype={dtype}", "evaluation.curve=none", "model.weights=random")


@pytest.mark.parametrize("loss", ["ga", "gd"])
def test_other_losses_run(start, loss):
    record = results.read(start(f"loss={loss}", "init=vanilla", "evaluation.curve=none"))
    assert ("retain_loss" in record.training) == (loss != "ga")
    assert record.protocol["examples_per_update"] == [8, 8 if loss == "gd" else 0]


def test_plain_head_gives_the_same_run(start):
    chunked = results.read(start("training.chunk_rows=7", "evaluation.curve=none"))
    plain = results.read(start("training.head=plain", "evaluation.curve=none"))
    for name in ("forget_loss", "retain_loss"):
        assert plain.training[name] == pytest.approx(chunked.training[name], rel=1e-3, abs=1e-4)


def test_released_fila_runs(start):
    record = results.read(start("init=fila_official", "evaluation.curve=none"))
    assert record.init["name"] == "fila_official"


def test_evaluation_only(start):
    folder = start("unlearn=false")
    record = results.read(folder)
    assert record.models.keys() == {"target", "reference"}
    assert record.curve == []
    assert not (folder / "adapter").exists()


def test_without_reference_forget_quality_is_absent(start):
    record = results.read(start("reference.source=none", "evaluation.curve=none"))
    assert "forget_quality" not in record.models["unlearned"].metrics
    assert "no reference" in record.verdict


def test_random_weights_are_marked(start):
    record = results.read(start("model.weights=random", "evaluation.curve=none"))
    assert record.models["target"].weights == "random"
    assert "RANDOM" in record.run.label
    assert "reference" not in record.models


def test_target_and_reference_from_folders(start, shared_cache):
    base = json.loads((start() / "adapter/manifest.json").read_text())["recipe"]["base"]
    record = results.read(
        start(
            f"target.path={base}",
            "reference.source=path",
            f"reference.path={base}",
            "evaluation.curve=none",
        )
    )
    assert record.models["target"].weights == record.models["reference"].weights == "pretrained"
    assert record.models["target"].metrics["forget_quality"] == 1.0
    assert record.models["target"].metrics["forget_ks"] == 0.0


def test_target_that_does_not_know_the_forget_set_is_refused(start):
    with pytest.raises(
        ConfigError, match=r"target\.min_known=1\.0 \(the threshold of dataset toy_tofu\)"
    ):
        start("target.min_known=1.0")


def test_loss_that_is_not_finite_stops_and_keeps_the_last_snapshot(start, tmp_path, monkeypatch):
    import loku_exp.losses.builtin as objectives

    whole = objectives.ihl
    calls = []

    def breaking(forget, retain, *, retain_weight):
        calls.append(1)
        terms = whole(forget, retain, retain_weight=retain_weight)
        return terms if len(calls) <= 7 else type(terms)(terms.forget * float("nan"), terms.retain)

    monkeypatch.setattr(objectives, "ihl", breaking)
    with pytest.raises(TrainingError, match="the loss is nan at update 8"):
        start("seed=9")
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in folder.glob("snapshots/*")] == ["step-00005"]
    assert "Traceback" in (folder / "run.log").read_text()


def test_a_loss_may_compare_with_the_target_in_full_fine_tuning(start, monkeypatch):
    import loku_exp.losses.builtin as objectives
    from loku_exp.losses.scores import LossTerms

    def divergence(forget, retain, *, retain_weight):
        ratio = forget.logprobs() - forget.reference.logprobs()
        return LossTerms(ratio.mean())

    monkeypatch.setattr(objectives, "ihl", divergence)
    record = results.read(start("lora=none", "seed=7", "evaluation.curve=none"))
    losses = record.training["forget_loss"]
    assert losses[0] == pytest.approx(0, abs=1e-5)  # nothing has moved yet
    assert losses[-1] < -0.01


def test_loss_that_reaches_no_adapter_is_refused(start, monkeypatch):
    import loku_exp.losses.builtin as objectives
    from loku_exp.losses.scores import LossTerms

    def constant(forget, retain, *, retain_weight):
        return LossTerms(0 * forget.logprobs().sum())

    monkeypatch.setattr(objectives, "ihl", constant)
    with pytest.raises(TrainingError, match="adapter matrices got no gradient at the first update"):
        start("seed=8")


def test_mistakes_leave_no_folder(start, tmp_path):
    for overrides in (
        ["model.lora_targets.all=[q_proj,fc9]"],
        ["init.num_retain=100000"],
        ["lora.rank=65"],
    ):
        with pytest.raises(UserError):
            start(*overrides, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_places_that_cannot_be_written_are_refused(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output_dir=.*file is not a folder that can be written"):
        start(output=tmp_path / "file")
    with pytest.raises(UserError, match="cache_dir"):
        run(compose_config([*QUICK, f"cache_dir={tmp_path}/file/x", f"output_dir={tmp_path}"]))


def test_a_damaged_record_is_named_not_overwritten(start):
    folder = start()
    (folder / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json is not a record of schema 1 .* force=true"):
        start()
    assert (folder / "metrics.json").read_text() == "{"
    assert start("force=true") != folder


def test_two_processes_do_not_share_a_folder(start, tmp_path):
    from loku_exp.results.folder import claimed

    folder = tmp_path / "run"
    with claimed(folder), pytest.raises(UserError, match="another process"), claimed(folder):
        pass


def test_a_run_that_finds_no_room_names_the_place_and_leaves_no_half(start, tmp_path):
    whole = start("evaluation.curve=none", output=tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"init\.safetensors cannot be written .*make room"):
            start("evaluation.curve=none", output=tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (folder,) = (tmp_path / "full").iterdir()
    left = {file.name for file in folder.iterdir()}
    assert left <= {"run.log", "config.yaml", "commit", ".lock"}
    assert start("evaluation.curve=none", output=tmp_path / "full") == folder
    same_numbers(whole, folder)


def test_the_rows_of_a_run_give_its_metrics_again(start):
    folder = start("evaluation.curve=none")
    rows = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    record = results.read(folder)
    for role, values in metrics_of(rows).items():
        expected = record.models[role].metrics
        again = {name: values[name] for name in expected if name in values}
        assert again == pytest.approx({name: expected[name] for name in again}, abs=1e-12)
        assert {
            "forget_prob",
            "retain_rouge",
            "authors_truth_ratio",
            "model_utility",
        } <= again.keys()
    assert "forget_quality" in metrics_of(rows)["unlearned"]


@pytest.mark.slow
def test_a_fresh_process_with_an_empty_cache_gives_the_same_numbers(start, tmp_path):
    arguments, environment = command(
        cache=tmp_path / "cache", output=tmp_path / "fresh", PYTHONHASHSEED="1"
    )
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    (fresh,) = (tmp_path / "fresh").iterdir()
    here = start()
    assert fresh.name == here.name
    same_numbers(fresh, here)


@pytest.mark.slow
def test_a_killed_base_training_leaves_no_entry(tmp_path):
    places = {"cache": tmp_path / "cache", "output": tmp_path / "out"}
    arguments, environment = command("model.finetuning.epochs=500", **places)
    process = subprocess.Popen(
        arguments, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    models = tmp_path / "cache/models"
    deadline = time.time() + 120
    while not (models.is_dir() and list(models.glob(".*-*/.staging"))) and time.time() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = [path for path in models.iterdir() if path.is_dir() and not path.name.startswith(".")]
    assert models.is_dir()
    assert left == []


FOREIGN = '''
from loku_exp.losses.scores import LossTerms

def squared(logits, labels):
    """The squared probability of the label; no closed-form gradient given."""
    return logits.softmax(-1).gather(1, labels[:, None]).squeeze(1) ** 2

def unlikely(forget, retain, *, strength: float = 1.0):
    return LossTerms(strength * forget.mean(squared), -retain.logprobs().mean())
'''


@pytest.fixture
def foreign(tmp_path, shared_cache):
    """Run the command line beside a package and a config folder of a user's own."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg/__init__.py").write_text(FOREIGN)
    (tmp_path / "conf/loss").mkdir(parents=True)
    (tmp_path / "conf/loss/unlikely.yaml").write_text("_target_: mypkg.unlikely\nstrength: 2.0\n")

    def start(*overrides: str) -> subprocess.CompletedProcess:
        arguments, environment = command(
            "evaluation.curve=none",
            *overrides,
            cache=shared_cache,
            output=tmp_path / "out",
            PYTHONPATH=str(tmp_path),
        )
        return subprocess.run(arguments, env=environment, capture_output=True, text=True)

    return start


@pytest.mark.slow
def test_a_loss_of_a_foreign_package_runs_by_its_dotted_name(foreign, tmp_path):
    """By a yaml of one's own it runs in the README's example."""
    by_target = foreign("loss._target_=mypkg.unlikely", "~loss.retain_weight")
    assert by_target.returncode == 0, by_target.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert "mypkg.unlikely" in (folder / "config.yaml").read_text()


@pytest.mark.slow
def test_knobs_of_a_foreign_loss_are_checked(foreign, tmp_path):
    wrong = foreign("--config-dir", str(tmp_path / "conf"), "loss=unlikely", "loss.strenght=1")
    assert wrong.returncode == 1
    assert "did you mean 'loss.strength'?" in wrong.stderr
    wrong = foreign("loss._target_=mypkg.unlikely")
    assert "loss.retain_weight: mypkg.unlikely has no such knob" in wrong.stderr
    assert "~loss.retain_weight" in wrong.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_command_line_exit_codes(tmp_path, shared_cache):
    arguments, environment = command("lora.rnak=1", cache=shared_cache, output=tmp_path / "out")
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: lora.rnak: no such key; did you mean 'lora.rank'?\n"
    assert not (tmp_path / "out").exists()


def test_weights_trained_whole_are_fp32_while_they_train(start, shared_cache):
    """At the official rates an update of a bf16 weight rounds away, so nearly none would move."""
    from loku_exp.models.load import build_model, linear_layers
    from loku_exp.runtime.cache import Cache
    from loku_exp.runtime.seeds import derive
    from loku_exp.stages.finetuning import finetune
    from loku_exp.stages.inputs import load_materials

    overrides = [*QUICK, "model.dtype=bfloat16", "model.finetuning.learning_rate=2e-5"]
    config = compose_config([*overrides, f"cache_dir={shared_cache}"])
    materials = load_materials(config, Cache(config.cache_dir))
    folder = shared_cache / "fine-tuned at the official rate"
    finetune("target", config, materials, folder, 0)
    seed = derive(config.target.seed, "target", "weights")
    before = linear_layers(
        build_model(config.model, materials.tokenizer, seed, torch.device("cpu"))
    )
    after = linear_layers(AutoModelForCausalLM.from_pretrained(folder))
    moved = [(before[name].weight != after[name].weight).float().mean() for name in before]
    assert {layer.weight.dtype for layer in after.values()} == {torch.bfloat16}
    assert torch.stack(moved).mean() > 0.9


def test_full_fine_tuning_of_a_bf16_model_trains_fp32_weights(start):
    folder = start("lora=none", "model.dtype=bfloat16", "evaluation.curve=reduced")
    step = load_file(folder / "snapshots/step-00010/model.safetensors")
    shipped = load_file(folder / "model/model.safetensors")
    assert {tensor.dtype for tensor in step.values()} == {torch.float32}
    assert {tensor.dtype for tensor in shipped.values()} == {torch.bfloat16}
    assert results.read(folder).training["reload_difference"] == 0
