"""A second request starts from what the first one left, and asks again what was forgotten first."""

import json

import pytest
import torch

from loku_exp.attack import attack
from loku_exp.config.compose import compose_config
from loku_exp.data import toy_tofu
from loku_exp.data.toy_tofu import load_toy_tofu
from loku_exp.errors import UserError
from loku_exp.export.exporting import Shape, export
from loku_exp.methods.adapter import attach, load_factors
from loku_exp.models.load import load_model
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.models.trained import load_trained
from loku_exp.results import files as results
from loku_exp.run import run
from loku_exp.runtime.cache import Cache, seal
from loku_exp.stages.identity import run_id
from loku_exp.stages.inputs import load_inputs
from loku_exp.stages.unlearn import plan_adapter
from tests.damage import flip
from tests.data.tofu_folder import tofu_folder
from tests.helpers import killed_at_its_first_snapshot, tiny_model
from tests.runs.running import examples, forget_end, same_numbers

CPU = torch.device("cpu")
SECOND = [
    "model=toy_neo", "model.architecture.hidden_size=64", "model.finetuning.epochs=8", "dataset=qa",
    "target=run", "training.epochs=2", "training.batch_size=8", "training.micro_batch_size=8",
    "evaluation.max_tokens=64",
]  # fmt: skip


def write(place, name, rows):
    """A file of questions; return its path."""
    file = place / f"{name}.json"
    file.write_text(json.dumps([{"question": q, "answer": a} for q, a in rows]))
    return file


@pytest.fixture(scope="session")
def world():
    """The toy world of `quick`: rows to forget, and rows of its first two authors and the rest."""
    corpus = load_toy_tofu(num_authors=8, num_forget=2, num_others=15, world_seed=0)
    rows = {
        "forgotten": corpus.forget,
        "second": corpus.retain[:40],
        "kept": corpus.retain[40:],
        "third": corpus.retain[40:60],
        "kept by the third": corpus.retain[60:],
        "some forgotten": [*corpus.retain[:6], *corpus.forget[6:9]],
    }
    return {name: [(row.question, row.answer) for row in of] for name, of in rows.items()}


@pytest.fixture
def again(world, quick, tmp_path, shared_cache):
    """Start a second request from a run's folder; return the second one's."""

    def again(*overrides, of=quick, forget="second", retain="kept", output=tmp_path / "out"):
        forgets, retains = (write(tmp_path, n, world[n]) for n in (forget, retain))
        data = [f"dataset.forget={forgets}", f"dataset.retain={retains}"]
        places = [f"output_dir={output}", f"cache_dir={shared_cache}", f"target.run={of}"]
        return run(compose_config([*SECOND, *data, *places, *overrides]))

    return again


def logits_of(model, ids):
    with torch.no_grad():
        return model.eval()(ids).logits


IDS = torch.randint(0, 900, (3, 40), generator=torch.Generator().manual_seed(0))


def unlearned_logits(folder, ids):
    """Logits of a run's unlearned model as its training left it: base without A0 B0, with A and B."""
    config = compose_config(["experiment=quick"])
    manifest = json.loads((folder / "adapter/manifest.json").read_text())
    target = load_model(config.model, manifest["recipe"]["base"], CPU)
    factors, _ = load_factors(folder / "init.safetensors")
    adapter = plan_adapter(config, load_inputs(config, Cache(folder / "unused")))
    model, _ = attach(target, factors, adapter)
    load_trained(model, folder / "snapshots/step-00010")
    return logits_of(model, ids)


def test_the_target_is_what_the_earlier_run_left(again, quick):
    folder = again()
    record, earlier = results.read(folder), results.read(quick)
    target = load_model(compose_config(SECOND[:2]).model, record.models["target"].path, CPU)
    left = unlearned_logits(quick, IDS)
    torch.testing.assert_close(logits_of(target, IDS), left, atol=1e-4, rtol=0)
    then, now = earlier.models["unlearned"].metrics, record.models["target"].metrics
    assert now["earlier_prob"] == pytest.approx(then["forget_prob"], abs=1e-5)
    assert now["earlier_em"] == pytest.approx(then["forget_em"], abs=0.01)
    assert now["earlier_prob"] < earlier.models["target"].metrics["forget_prob"] - 0.01
    after = record.models["unlearned"].metrics
    assert after["earlier_prob"] != now["earlier_prob"]
    assert record.protocol["target_run"] == earlier.run.id
    assert record.protocol["rows"]["earlier"] == 20
    assert all("earlier_prob" in point.metrics for point in record.curve)
    (said,) = [note for note in record.notes if note.startswith("target: what run")]
    assert earlier.run.id in said
    assert quick.name in said
    assert (
        f"from {earlier.models['target'].metrics['forget_prob']:.3f} to {then['forget_prob']:.3f}"
        in said
    )
    table = (folder / "results.md").read_text()
    assert "earlier forget set, probability" in table
    assert len(examples(folder, "unlearned", "earlier")) == 20


@pytest.mark.slow
def test_a_third_request_asks_both_earlier_sets_again(again, quick, tmp_path, world):
    second = again("evaluation.curve=none")
    third = again("evaluation.curve=none", of=second, forget="third", retain="kept by the third")
    record = results.read(third)
    assert record.protocol["target_run"] == results.read(second).run.id
    assert record.protocol["rows"]["earlier"] == 20 + 40
    rows = examples(third, "target", "earlier")
    runs = [row["group"].split()[0] for row in rows]
    ids = [results.read(folder).run.id for folder in (second, quick)]
    assert runs == [ids[0]] * 40 + [ids[1]] * 20
    export(second, tmp_path / "merged", shape=Shape(merged=True))
    settings = compose_config(SECOND[:2]).model
    ours, theirs = (
        logits_of(load_model(settings, str(path), CPU), IDS)
        for path in (record.models["target"].path, tmp_path / "merged")
    )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_killed_second_request_goes_on_to_the_same_numbers(again, tmp_path, monkeypatch):
    whole = again(output=tmp_path / "whole")
    with killed_at_its_first_snapshot():
        again()
    (begun,) = (tmp_path / "out").iterdir()
    assert not (begun / "done.json").exists()
    assert again() == begun
    same_numbers(whole, begun)
    forget_end(begun)
    assert again("attacks=[int8]") == begun
    metrics = results.read(begun).models["unlearned+int8"].metrics
    assert 0 < metrics["earlier_prob"] < 1
    monkeypatch.chdir(tmp_path)  # the earlier run is found from anywhere
    assert attack(begun, ["int4"]) == begun
    assert {"target+int4", "unlearned+int4"} <= results.read(begun).models.keys()


def test_a_run_is_named_by_what_the_earlier_one_left_wherever_that_lies(
    world, quick, copied, tmp_path, shared_cache
):
    sets = {"forget": "second", "retain": "kept"}
    data = [f"dataset.{key}={write(tmp_path, name, world[name])}" for key, name in sets.items()]

    def id_of(*target):
        config = compose_config([*SECOND[:4], *data, *target])
        return run_id(config, load_inputs(config, Cache(shared_cache)))

    assert id_of("target=run", f"target.run={quick}") == id_of("target=run", f"target.run={copied}")
    before = id_of("target=run", f"target.run={copied}")
    flip(copied / "adapter/adapter_model.safetensors")
    recipe = json.loads((copied / "adapter/manifest.json").read_text())["recipe"]
    (copied / "adapter/manifest.json").unlink()
    seal(copied / "adapter", recipe)
    (copied / "done.json").write_text(json.dumps({"id": "x", "sha256": {}}))
    assert id_of("target=run", f"target.run={copied}") != before


@pytest.mark.slow
def test_all_weights_that_an_earlier_run_trained_are_the_target(again, begin):
    first = begin("lora=none", "evaluation.curve=none")
    record = results.read(again("evaluation.curve=none", of=first))
    assert record.models["target"].path == str(first / "model")
    then = results.read(first).models["unlearned"].metrics["forget_prob"]
    assert record.models["target"].metrics["earlier_prob"] == pytest.approx(then, abs=1e-5)


# -- what is refused, before anything is made ----------------------------------------------------


def refused(again, tmp_path, *overrides, **options):
    """The lines of an error that came before anything was made."""
    with pytest.raises(UserError) as error:
        again(*overrides, **options)
    assert not (tmp_path / "out").exists()
    return str(error.value).splitlines()


@pytest.mark.slow
def test_what_is_no_run_to_start_from_is_said_in_a_line(again, begin, copied, tmp_path):
    (line,) = refused(again, tmp_path, of=tmp_path / "gone")
    assert line == f"target.run={tmp_path / 'gone'}: no such folder"
    (line,) = refused(again, tmp_path, of=tmp_path)
    assert f"target.run={tmp_path}: {tmp_path} is no folder of a run" in line
    evaluated = begin("unlearn=false", output=tmp_path / "evaluated")
    (line,) = refused(again, tmp_path, of=evaluated)
    assert "it only evaluates (unlearn=false)" in line
    random = begin("model.weights=random", "evaluation.curve=none", output=tmp_path / "random")
    (line,) = refused(again, tmp_path, of=random)
    assert line.endswith("its weights are random, for timing only")
    (line,) = refused(again, tmp_path, "target.path=some/where", of=copied)
    assert "a run has one target" in line
    (copied / "done.json").rename(copied / "aside.json")
    (line,) = refused(again, tmp_path, of=copied)
    assert f"{copied} is not finished" in line


@pytest.mark.parametrize(
    "file", ["adapter/adapter_model.safetensors", "metrics.json", "config.yaml"]
)
def test_a_damaged_run_is_refused(again, copied, tmp_path, file):
    flip(copied / file)
    (line,) = refused(again, tmp_path, of=copied)
    assert line.startswith(f"target.run={copied}: {copied}/{file.partition('/')[0]}")
    assert "damaged" in line or "is not what was written" in line


def test_a_target_that_is_gone_is_refused(again, copied, tmp_path):
    """An adapter alone is no model; the manifest is written anew as its run would have."""
    manifest = copied / "adapter/manifest.json"
    content = json.loads(manifest.read_text())
    manifest.unlink()
    seal(copied / "adapter", content["recipe"] | {"base": str(tmp_path / "gone")})
    (copied / "done.json").write_text(json.dumps({"id": "x", "sha256": {}}))
    (line,) = refused(again, tmp_path, of=copied)
    assert line.startswith(f"target.run={copied}: its target, {tmp_path / 'gone'}, is gone; ")


def test_another_model_or_tokenizer_is_refused(again, quick, tmp_path):
    (line,) = refused(again, tmp_path, "model.architecture.hidden_size=32")
    assert "its base model is toy_neo (trained from scratch)" in line
    train_tokenizer(["other words entirely"] * 3, 300).save_pretrained(tmp_path / "words")
    (line,) = refused(again, tmp_path, f"model.tokenizer={tmp_path / 'words'}")
    assert "its tokenizer is another one than this run's" in line
    base = json.loads((quick / "adapter/manifest.json").read_text())["recipe"]["base"]
    words = [f"model.tokenizer={base}", "model.template.question_end=' ?'"]
    (line,) = refused(again, tmp_path, *words)
    assert "its template (model.template) is another one than this run's" in line


def test_rows_that_were_forgotten_before_are_named(again, tmp_path):
    (line,) = refused(again, tmp_path, forget="some forgotten")
    assert "3 rows of this run's forget set are forgotten already: row 6 (its forget row" in line
    (line,) = refused(again, tmp_path, retain="forgotten")
    assert "40 rows of this run's retain set were forgotten, and to keep them would teach" in line


def test_data_that_changed_since_is_refused(again, copied, tmp_path, monkeypatch):
    monkeypatch.setattr(toy_tofu, "AUTHOR_FACTS", dict(list(toy_tofu.AUTHOR_FACTS.items())[::-1]))
    (line,) = refused(again, tmp_path, of=copied)
    assert "its data is no longer what it was run on" in line


# -- plain texts, and a model in a folder ---------------------------------------------------------

TEXTS = [f"The number of vault {n} is {n * 7919}, and nobody may read it aloud." for n in range(12)]


@pytest.fixture(scope="module")
def folder_of_model(tmp_path_factory):
    place = tmp_path_factory.mktemp("own")
    model, tokenizer = tiny_model(vocabulary=300), train_tokenizer(TEXTS * 3, 300)
    model.config.max_position_embeddings = 256
    type(model)(model.config).save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    for name, rows in (("first", TEXTS[:3]), ("second", TEXTS[3:6]), ("rest", TEXTS[6:])):
        (place / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in rows))
    return place


def test_texts_of_a_model_in_a_folder(folder_of_model, tmp_path, shared_cache):
    def begin(forget, *overrides, retain="rest"):
        data = {
            "forget": folder_of_model / f"{forget}.jsonl",
            "retain": folder_of_model / f"{retain}.jsonl",
        }
        given = [f"dataset.{name}={file}" for name, file in data.items()]
        given += [f"model.path={folder_of_model / 'model'}", f"output_dir={tmp_path}"]
        return run(
            compose_config(
                ["model=hf", "dataset=texts", "model.attention=eager", "model.dtype=float32",
                 "training.epochs=1", "lora.rank=4", f"cache_dir={shared_cache}", *given, *overrides]
            )
        )  # fmt: skip

    first = begin("first", "init=vanilla")
    started = ("target=run", f"target.run={first}", "init=vanilla")
    record = results.read(begin("second", *started))
    then = results.read(first).models["unlearned"].metrics["forget_prob"]
    assert record.models["target"].metrics["earlier_prob"] == pytest.approx(then, rel=1e-4)
    assert record.models["target"].weights == "pretrained"
    with pytest.raises(
        UserError, match=r"3 rows of this run's forget set are forgotten already: row 0"
    ):
        begin("first", *started)
    (folder_of_model / "first.jsonl").rename(folder_of_model / "moved.jsonl")
    with pytest.raises(
        UserError, match=r"target\.run=.*dataset\.forget=.*first.jsonl: no such file"
    ):
        begin("second", *started, "seed=1")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tofu_first_then_questions_of_other_authors(tmp_path, shared_cache, dtype):
    """TOFU's own splits lie within each other; rows of its files that are in none are a second request."""
    place = tofu_folder(tmp_path)
    lines = (place / "full.json").read_text().splitlines()
    for name, some in (("second", lines[:10]), ("rest", lines[10:40])):
        (place / f"{name}.jsonl").write_text("\n".join(some))

    def begin(*words):
        places = [f"output_dir={tmp_path / 'out'}", f"cache_dir={shared_cache}"]
        given = [*SECOND[:3], "training=toy_tofu", *SECOND[5:], f"model.dtype={dtype}", *places]
        return run(compose_config([*given, "target.min_known=0", "evaluation.curve=none", *words]))

    tofu = ["dataset=tofu", f"dataset.path={place}", "dataset.forget_split=forget10"]
    first = begin(*tofu, "evaluation.rows=15")
    own = [
        "dataset=qa",
        f"dataset.forget={place}/second.jsonl",
        f"dataset.retain={place}/rest.jsonl",
    ]
    started = ("target=run", f"target.run={first}")
    record = results.read(begin(*own, *started))
    assert record.protocol["rows"]["earlier"] == 15  # as many as its suite asked
    then = results.read(first).models["unlearned"].metrics["forget_prob"]
    rounding = 1e-5 if dtype == "float32" else 0.05 * then
    assert record.models["target"].metrics["earlier_prob"] == pytest.approx(then, abs=rounding)
    with pytest.raises(UserError, match=r"20 rows of this run's forget set are forgotten already"):
        begin(*tofu, *started)
