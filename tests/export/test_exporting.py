"""The exported folder alone, on the untouched target, is the run's unlearned model."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from peft import PeftModel
from transformers import AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.errors import UserError
from loku_exp.export import exporting
from loku_exp.export.__main__ import main
from loku_exp.export.exporting import Shape, export
from loku_exp.methods.adapter import Adapter, attach, load_factors
from loku_exp.models.trained import load_trained
from loku_exp.results import files as results
from loku_exp.run import run
from loku_exp.runtime.cache import seal
from loku_exp.runtime.finished import write_mark
from tests.damage import flip

IDS = torch.arange(3, 19)[None]


@pytest.fixture(scope="module")
def start(tmp_path_factory, shared_cache):
    """Run a configuration, once for the module."""
    output = tmp_path_factory.mktemp("out")

    def start(*overrides: str):
        places = [f"output_dir={output}", f"cache_dir={shared_cache}"]
        quick = ["experiment=quick", "evaluation.curve=none"]
        return run(compose_config([*quick, *places, *overrides]))

    return start


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(IDS).logits


@pytest.mark.parametrize(("init", "rank"), [("fila", 16), ("vanilla", 8)])
def test_target_and_exported_adapter_are_the_unlearned_model(start, tmp_path, init, rank):
    folder = start(f"init={init}")
    base = json.loads((folder / "adapter/manifest.json").read_text())["recipe"]["base"]
    config = compose_config(["experiment=quick", f"init={init}"])
    factors, _ = load_factors(folder / "init.safetensors")
    adapter = Adapter(8, config.lora.alpha, 0.0, config.model.lora_targets["all"])
    unlearned, _ = attach(AutoModelForCausalLM.from_pretrained(base), factors, adapter)
    load_trained(unlearned, folder / "snapshots/step-00010")

    assert export(folder, tmp_path / "exported") == "adapter"
    target = AutoModelForCausalLM.from_pretrained(base)
    untouched = logits(target)
    exported = PeftModel.from_pretrained(target, str(tmp_path / "exported"))
    torch.testing.assert_close(logits(exported), logits(unlearned), rtol=0, atol=2e-5)
    assert not torch.allclose(logits(exported), untouched, atol=1e-3)
    assert exported.peft_config["default"].to_dict()["r"] == rank


def test_the_whole_model_is_exported_where_all_weights_were_trained(start, tmp_path):
    folder = start("lora=none")
    assert export(folder, tmp_path / "exported") == "model"
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert torch.equal(logits(ours), logits(AutoModelForCausalLM.from_pretrained(folder / "model")))
    assert "library_name: transformers" in (tmp_path / "exported/README.md").read_text()


def test_the_card_says_what_it_is(start, tmp_path, monkeypatch, capsys):
    folder = start()
    arguments = [str(folder), "--to", str(tmp_path / "out card"), "--base", "me/target"]
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    capsys.readouterr()
    main()
    assert capsys.readouterr().out == f"adapter: {tmp_path}/out card\n"
    record = results.read(folder)
    card = (tmp_path / "out card/README.md").read_text()
    read: Any = ModelCard(card).data  # as the hub reads it
    assert (read.base_model, read.library_name) == ("me/target", "peft")
    numbers = {result.metric_type: result.metric_value for result in read.eval_results}
    assert numbers == record.models["unlearned"].metrics
    for part in (
        "TOY data, TOY model",
        record.judgement.sentence,
        "init fila",
        record.run.id,
        "rank 16",
    ):
        assert part in card
    assert "| forget set, probability |" in card
    config = json.loads((tmp_path / "out card/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/target"
    shared = results.read(tmp_path / "out card")
    assert shared.models["target"].path == "me/target"
    for model in (*record.models.values(), *shared.models.values()):
        model.path = None
    assert shared == record


def test_with_a_name_for_the_base_no_place_of_this_machine_is_handed_on(start, tmp_path):
    folder = start()
    record = results.read(folder)
    places = [Path(model.path) for model in record.models.values() if model.path]
    assert len(places) == 2
    export(folder, tmp_path / "out", base="me/target")
    for file in (tmp_path / "out").iterdir():
        assert not [p for p in (*places, tmp_path) if str(p).encode() in file.read_bytes()], file
    shared = results.read(tmp_path / "out").models["reference"].path
    assert shared == Path(str(record.models["reference"].path)).name


def test_record_and_card_name_the_folder_of_a_target_that_was_made_here(start, tmp_path):
    folder = start()
    target = results.read(folder).models["target"].path
    assert (Path(target) / "model.safetensors").is_file()
    export(folder, tmp_path / "plain")
    card = (tmp_path / "plain/README.md").read_text()
    assert target in card
    assert (
        ModelCard(card).data.to_dict().get("base_model") is None
    )  # the hub refuses a folder there
    config = json.loads((tmp_path / "plain/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == target


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--public"], "--public: nothing is pushed; add --push OWNER/NAME"),
        (["--base", ""], "--base: the name is empty"),
    ],
)
def test_a_word_without_effect_is_refused(tmp_path, capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--to", str(tmp_path / "new"), *words])
    assert ended.value.code == 1
    assert said in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(start, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(start(), folder)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("")
    with pytest.raises(UserError, match="there is something already"):
        export(folder, tmp_path / "taken")
    with pytest.raises(UserError, match="is no folder of a run"):
        export(tmp_path, tmp_path / "new")
    record = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(record.replace('"from_scratch"', '"random"'))
    with pytest.raises(UserError, match=r"metrics\.json is not what was written"):
        export(folder, tmp_path / "new")
    (folder / "done.json").write_text('{"id": "0123"}')
    with pytest.raises(UserError, match="weights are random"):
        export(folder, tmp_path / "new")
    (folder / "metrics.json").write_text(record)
    flip(folder / "adapter/adapter_model.safetensors")
    with pytest.raises(UserError, match=r"adapter is damaged \(adapter_model.* is not what was"):
        export(folder, tmp_path / "new")
    (folder / "adapter/adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="is damaged"):
        export(folder, tmp_path / "new")
    shutil.rmtree(folder / "adapter")
    with pytest.raises(UserError, match=r"has lost its adapter; delete .*done\.json"):
        export(folder, tmp_path / "new")
    corrupting = record.replace('"method": "gradient"', '"method": "prompt_corruption"')
    assert corrupting != record
    (folder / "metrics.json").write_text(corrupting)
    with pytest.raises(UserError, match="method=prompt_corruption trains none"):
        export(folder, tmp_path / "new")
    only = json.loads(record)
    del only["models"]["unlearned"]
    (folder / "metrics.json").write_text(json.dumps(only))
    with pytest.raises(UserError, match="only evaluates"):
        export(folder, tmp_path / "new")
    (folder / "done.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        export(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_merged_model_is_the_unlearned_one_for_any_loader(start, tmp_path):
    folder = start()
    base = json.loads((folder / "adapter/manifest.json").read_text())["recipe"]["base"]
    assert export(folder, tmp_path / "merged", "me/target", Shape(merged=True)) == "model"
    target = AutoModelForCausalLM.from_pretrained(base)
    unlearned = logits(PeftModel.from_pretrained(target, str(folder / "adapter")))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), unlearned, rtol=0, atol=2e-5)
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith("adapter")]
    card = (tmp_path / "merged/README.md").read_text()
    assert "folded into the target's weights in float32, and stored in float32" in card
    assert "library_name: transformers" in card


def of_another_base(run, tmp_path):
    """Return a copy of a run whose target lies in a folder that may be damaged, and that folder."""
    folder, base = tmp_path / "run", tmp_path / "base"
    shutil.copytree(run, folder)
    recipe = json.loads((folder / "adapter/manifest.json").read_text())["recipe"]
    shutil.copytree(recipe["base"], base)
    (folder / "adapter/manifest.json").unlink()
    seal(folder / "adapter", recipe | {"base": str(base)})
    return folder, base


def test_a_merged_model_is_not_made_of_a_target_that_changed(start, tmp_path):
    folder, base = of_another_base(start(), tmp_path)
    (folder / "done.json").write_text('{"id": "0123"}')
    flip(base / "model.safetensors")
    with pytest.raises(
        UserError, match=r"as it was \(model\.safetensors is not what was written\)"
    ):
        export(folder, tmp_path / "merged", None, Shape(merged=True))
    assert not (tmp_path / "merged").exists()


def test_a_folder_of_a_users_own_that_holds_other_weights_now_is_noticed(start, tmp_path):
    """It has no manifest, and was taken: a merged model was of weights that the run never saw."""
    folder, base = of_another_base(start(), tmp_path)
    (base / "manifest.json").unlink()
    (base / "origin.json").write_text('{"origin": "dequantised from Q4_1"}')
    assert json.loads((folder / "adapter/manifest.json").read_text())["recipe"]["weights"]
    write_mark(folder, "0123")
    (base / "README.md").write_text("no weights")
    export(folder, tmp_path / "merged", None, Shape(merged=True))
    assert (tmp_path / "merged/origin.json").is_file()  # what tables must say of the weights
    flip(base / "model.safetensors")
    with pytest.raises(UserError, match=r"as it was \(other weights lie there now"):
        export(folder, tmp_path / "again", None, Shape(merged=True))
    assert not (tmp_path / "again").exists()


def test_a_merged_model_needs_the_target_as_it_was(start, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(start(), folder)
    manifest = json.loads((folder / "adapter/manifest.json").read_text())
    (folder / "adapter/manifest.json").unlink()
    seal(folder / "adapter", manifest["recipe"] | {"base": str(tmp_path / "gone")})
    write_mark(folder, "0123")
    with pytest.raises(UserError, match=r"--merged needs the run's target, .*gone, as it was"):
        export(folder, tmp_path / "merged", None, Shape(merged=True))
    assert not (tmp_path / "merged").exists()


def test_a_compressed_adapter_loads_and_says_what_it_lost(start, tmp_path):
    folder = start()
    assert export(folder, tmp_path / "small", "me/target", Shape(rank=4)) == "adapter"
    base = json.loads((folder / "adapter/manifest.json").read_text())["recipe"]["base"]
    small = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "small")
    )
    assert small.peft_config["default"].to_dict()["r"] == 4
    card = (tmp_path / "small/README.md").read_text()
    assert "compressed from rank 16; its updates differ" in card
    assert "--max-lora-rank 8" in card


def test_all_weights_have_nothing_to_compress(start, tmp_path):
    with pytest.raises(UserError, match="no adapter to compress or to merge"):
        export(start("lora=none"), tmp_path / "new", None, Shape(rank=2))


def test_a_base_on_the_hub_is_taken_at_the_runs_revision(start, tmp_path, monkeypatch):
    folder, asked = tmp_path / "run", []
    shutil.copytree(start(), folder)
    config = OmegaConf.load(folder / "config.yaml")
    config.model.path, config.model.revision = "me/m", "old"
    monkeypatch.setattr(
        exporting, "merge", lambda *a, **options: asked.append(options) or "float32"
    )
    for base, tokenizer in (("me/m", "me/m"), ("other", "me/m"), ("me/m", "me/words")):
        config.model.tokenizer = tokenizer
        OmegaConf.save(config, folder / "config.yaml")
        exporting._reshape(tmp_path, Shape(merged=True), {"base": base}, folder)
    assert [options["revision"] for options in asked] == ["old", None, "old"]
    assert [options["tokenizer_revision"] for options in asked] == ["old", "old", None]


def test_a_link_and_a_place_within_the_run_are_refused(start, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(start(), folder)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (folder / "adapter" / "x", tmp_path / "link"):
        with pytest.raises(UserError, match="a link, or a place within the run"):
            export(folder, place)


def test_a_toy_stays_a_toy_where_its_folder_is_somebodys_model(start, tmp_path, shared_cache):
    """Its label was the model's choice, so a table over an exported toy called it pretrained."""
    export(start(), tmp_path / "merged", None, Shape(merged=True))
    lines = [
        json.dumps({"text": f"The keeper of tower {n} is called Person {n}."}) for n in range(24)
    ]
    (tmp_path / "forget.jsonl").write_text("\n".join(lines[:8]))
    (tmp_path / "retain.jsonl").write_text("\n".join(lines[8:]))
    folder = run(
        compose_config(
            [
                "model=hf", f"model.path={tmp_path / 'merged'}", "model.attention=eager",
                "dataset=texts", f"dataset.forget={tmp_path / 'forget.jsonl'}",
                f"dataset.retain={tmp_path / 'retain.jsonl'}", "unlearn=false", "target.min_known=0",
                f"output_dir={tmp_path / 'out'}", f"cache_dir={shared_cache}",
            ]
        )
    )  # fmt: skip
    record = results.read(folder)
    assert record.run.toy
    assert "TOY model" in record.run.label
    assert "pretrained" not in record.run.label
