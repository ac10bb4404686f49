"""What a finished run leaves: its files, its record, its rows, an adapter; and what it is taken for."""

import json
import re

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.errors import HeldError, UserError
from loku_exp.results import files as results
from loku_exp.results.folder import claimed
from loku_exp.results.terminal import show
from loku_exp.runtime.cache import Cache, damage
from loku_exp.stages.inputs import load_inputs
from tests.runs.running import QUICK, same_numbers

FILES = ["config.yaml", "metrics.json", "examples.jsonl", "results.md", "curve.png", "run.log"]
FILES += [
    "done.json",
    "init.safetensors",
    "init.sha256",
    "seconds.json",
    "unlearning.json",
    "commit",
]


def test_a_run_leaves_everything_promised(quick, capsys):
    assert quick.name.startswith("toy_neo-toy_tofu-ihl-fila-r8-")
    for name in FILES:
        assert (quick / name).stat().st_size > 0, name
    record = results.read(quick)
    assert record.models.keys() == {"target", "reference", "unlearned"}
    assert record.run.toy
    assert "TOY" in record.run.label
    assert record.protocol["updates"] == 10
    assert record.protocol["examples_per_update"] == [8, 8]
    assert len(record.training["forget_loss"]) == len(record.training["retain_loss"]) == 10
    assert 0 <= record.training["clipped_share"] <= 1
    assert record.training["reload_difference"] < 1e-3
    assert [point.step for point in record.curve] == [0, 5, 10]
    assert record.curve[0].metrics == record.models["target"].metrics
    assert record.curve[-1].metrics == record.models["unlearned"].metrics
    assert 0 < record.init["share_of_weight_norm"] < 1
    assert record.init["share_of_matrices"] == 1.0
    assert record.init["epsilon_dominates"] in (True, False)
    assert record.cost["flops"]["training"] > 0
    assert "model_utility" in record.models["target"].metrics
    assert "forget_quality" in record.models["unlearned"].metrics
    assert "forget_quality" not in record.models["reference"].metrics
    assert record.judgement == record.models["unlearned"].judgement
    assert "TOY data" in (quick / "results.md").read_text()
    show(record, quick)
    assert f"verdict: {record.judgement.sentence}" in capsys.readouterr().out.replace("\n", " ")


def test_examples_are_one_row_each_of_every_model(quick):
    record = results.read(quick)
    examples = [json.loads(line) for line in (quick / "examples.jsonl").read_text().splitlines()]
    assert {row["model"] for row in examples} == {"target", "reference", "unlearned"}
    assert len(examples) == 3 * sum(record.protocol["rows"].values())
    columns = {"row", "group", "tokens", "loss", "log_ratio", "generation", "question"}
    assert columns <= examples[0].keys()


def test_the_rows_of_a_run_give_its_metrics_again(quick, shared_cache):
    rows = [json.loads(line) for line in (quick / "examples.jsonl").read_text().splitlines()]
    record = results.read(quick)
    suite = load_inputs(compose_config([*QUICK]), Cache(shared_cache)).suite
    for name, model in record.models.items():
        own = [row for row in rows if row["model"] == name]
        of_reference = [row for row in rows if row["model"] == model.reference]
        found = suite.aggregate(own, of_reference or None)
        again = {key: found[key] for key in model.metrics if key in found}
        assert again == pytest.approx({key: model.metrics[key] for key in again}, abs=1e-12)
        assert {
            "forget_prob",
            "retain_rouge",
            "authors_truth_ratio",
            "model_utility",
        } <= again.keys()
        assert ("forget_quality" in again) == (name != "reference")


def test_the_machine_is_recorded_as_it_became(quick):
    machine = results.read(quick).machine
    config = (quick / "config.yaml").read_text()
    assert (machine.device, machine.threads, machine.processes) == ("cpu", 1, 1)
    assert machine.precision.keys() == {"model", "finetuning", "unlearning"}
    assert "auto" not in machine.precision.values()
    assert "device: cpu" in config
    assert not re.search(r"(device|autocast): auto", config)


def test_no_auto_is_left_in_a_record(quick):
    """Of what a program chose by itself the record says what it chose."""
    record = json.loads((quick / "metrics.json").read_text())
    assert "auto" not in (quick / "metrics.json").read_text().replace("autocast", "").split('"')
    assert record["init"]["fisher_pass"] == "hooks"
    assert record["training"]["gradient_checkpointing"] is False


def test_the_adapter_is_loaded_by_plain_peft_on_the_untouched_base(quick):
    base = json.loads((quick / "adapter/manifest.json").read_text())["recipe"]["base"]
    model = AutoModelForCausalLM.from_pretrained(base)
    untouched = {name: p.clone() for name, p in model.named_parameters()}
    plain = PeftModel.from_pretrained(model, str(quick / "adapter"))
    assert plain.peft_config["default"].to_dict()["r"] == 16  # rank 8, folded with its start
    for name, parameter in plain.get_base_model().named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, untouched[name.replace(".base_layer", "")])


def test_optimiser_state_is_kept_in_the_newest_snapshots_only(quick):
    states = sorted(path.parent.name for path in quick.glob("snapshots/*/optimizer.state"))
    assert states == ["step-00005", "step-00010"]
    assert all(damage(path) is None for path in quick.glob("snapshots/*"))
    assert not list(quick.glob("**/training_args.bin"))
    assert not (quick / ".staging").exists()


def test_a_finished_run_is_shown_not_repeated(quick, begin, asked, capsys):
    stamps = {file: file.stat().st_mtime_ns for file in quick.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert begin(output=quick.parent) == quick
    assert {file: file.stat().st_mtime_ns for file in quick.rglob("*") if file.is_file()} == stamps
    assert "verdict:" in capsys.readouterr().out
    assert asked.requests == {}


def test_force_runs_again_beside_it(quick, begin, copied, asked):
    again = begin("force=true", output=copied.parent)
    assert again == copied.with_name(f"{copied.name}-r2")
    same_numbers(quick, again)
    # it is unlearned again: nothing is taken over from the first one
    assert asked.requests.keys() == {"unlearned", "unlearned after update 5"}
    file = "snapshots/step-00010/adapter_model.safetensors"
    assert not (again / file).samefile(copied / file)


@pytest.mark.parametrize("name", ["metrics.json", "examples.jsonl", "results.md"])
def test_a_damaged_result_is_named_and_made_anew_of_what_is_kept(
    quick, begin, copied, asked, caplog, name
):
    file = copied / name
    file.write_bytes(file.read_bytes()[:-20])
    damaged = file.read_bytes()
    begin(output=copied.parent)
    assert f"{name} is " in caplog.text
    (aside,) = copied.glob(f"damaged-{name}-*")
    assert aside.read_bytes() == damaged
    assert asked.requests == {}
    same_numbers(quick, copied)


def test_a_damaged_mark_is_named_with_what_mends_it(begin, copied):
    (copied / "done.json").write_text("{")
    with pytest.raises(UserError, match=r"done\.json is damaged .* delete it"):
        begin(output=copied.parent)


def test_a_damaged_record_of_an_earlier_version_is_named_not_overwritten(begin, copied):
    (copied / "done.json").write_text('{"id": "of a run"}')
    (copied / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json is damaged .* force=true"):
        begin(output=copied.parent)
    assert (copied / "metrics.json").read_text() == "{"


def test_two_processes_do_not_share_a_folder(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder), pytest.raises(HeldError, match="another process"), claimed(folder):
        pass
