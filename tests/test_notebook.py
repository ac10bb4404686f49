"""A model in memory goes through the command's run, gets its numbers, and is left as it was."""

import json

import pandas as pd
import pytest
import torch

import loku_exp
from loku_exp.__main__ import main
from loku_exp.errors import ConfigError, DataError, UserError
from loku_exp.models.in_memory import saved_model
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.results import files
from loku_exp.runtime.cache import folder_digest
from tests.damage import flip
from tests.helpers import tiny_model

TEXTS = [f"The number of vault {n} is {n * 7919}, and nobody may read it aloud." for n in range(10)]
QUICK = ("training.epochs=1", "lora.rank=2")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 300)


@pytest.fixture
def model():
    model = tiny_model(vocabulary=300)
    model.config.max_position_embeddings = 256
    return type(model)(model.config).eval()


@pytest.fixture
def place(tmp_path, shared_cache):
    return {"output_dir": tmp_path / "out"}, (*QUICK, f"cache_dir={shared_cache}")


@pytest.fixture
def done(model, tokenizer, place):
    where, words = place
    return loku_exp.unlearn(model, tokenizer, *words, forget=TEXTS[:4], retain=TEXTS[4:], **where)


def test_the_model_is_left_alone_and_the_unlearned_one_is_what_was_measured(model, done, tokenizer):
    unlearned, results = done
    assert not hasattr(model, "peft_config")
    ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids
    with torch.no_grad():
        before, after = (m(input_ids=ids).logits for m in (model, unlearned))
        loss = unlearned(input_ids=ids, labels=ids).loss
    assert not torch.equal(before, after)
    (row,) = [
        row
        for line in (results.folder / "examples.jsonl").read_text().splitlines()
        if (row := json.loads(line))["model"] == "unlearned"
        and (row["set"], row["row"]) == ("forget", 0)
    ]
    assert float(loss) == pytest.approx(row["loss"], rel=1e-4)


def test_a_damaged_adapter_is_no_model(model, done):
    folder = done[1].folder
    flip(folder / "adapter/adapter_model.safetensors")
    with pytest.raises(UserError, match="is not what was written"):
        loku_exp.load_run(folder).model(model)


def test_the_numbers_are_the_commands_own(done, place, own_logging, tmp_path):
    """The same words on a command line lead to the same, finished run."""
    _, results = done
    where, words = place
    (folder,) = (where["output_dir"] / "models").iterdir()
    kept = {path.stat().st_size: path for path in (where["output_dir"] / "texts").iterdir()}
    forget, retain = (kept[size] for size in sorted(kept))
    main([
        "model=hf", f"model.path={folder}", "model.attention=eager", "model.dtype=float32",
        "dataset=texts", f"dataset.forget={forget}", f"dataset.retain={retain}",
        f"output_dir={tmp_path / 'command'}", *words,
    ])  # fmt: skip
    (again,) = (tmp_path / "command").iterdir()
    assert again.name == results.folder.name
    ours, theirs = results.record, files.read(again)
    assert {n: m.metrics for n, m in ours.models.items()} == {
        n: m.metrics for n, m in theirs.models.items()
    }


def test_results_are_numbers_a_frame_and_a_table(done):
    _, results = done
    assert results.metrics["unlearned"]["forget_ma"] >= 0
    assert set(results.frame.subject) == {"target", "unlearned"}
    assert "forget set, MA" in str(results)
    assert "<table" in results._repr_html_()
    loaded = loku_exp.load_run(results.folder)
    assert loaded.record == results.record
    with pytest.raises(UserError, match="not the folder of a finished run"):
        loku_exp.load_run(results.folder.parent)


def test_questions_and_answers(model, tokenizer, place):
    where, words = place
    rows = [{"question": f"What is in vault {n}?", "answer": f"It is {n}."} for n in range(8)]
    few = (*words, "training.batch_size=4", "training.epochs=2", "init=vanilla")
    _, results = loku_exp.unlearn(model, tokenizer, *few, forget=rows[:4], retain=rows[4:], **where)
    assert "forget_rouge" in results.metrics["unlearned"]


def test_evaluating_compares_with_a_reference_in_memory(model, tokenizer, place):
    where, words = place
    other = type(model)(model.config).eval()
    dataset = ("dataset.num_authors=8", "dataset.num_forget=2", "evaluation.rows=4")
    results = loku_exp.evaluate(
        model, tokenizer, *dataset, words[-1], dataset="toy_tofu", reference=other, **where
    )
    assert set(results.metrics) == {"target", "reference"}
    assert "forget_quality" in results.metrics["target"]
    with pytest.raises(UserError, match="only evaluates"):
        results.model(model)


def test_what_does_not_fit_is_said(model, tokenizer, place):
    from peft import LoraConfig, get_peft_model

    where, words = place
    with pytest.raises(ConfigError, match="no such loss"):
        loku_exp.unlearn(
            model, tokenizer, *words, forget=TEXTS[:4], retain=TEXTS[4:], loss="ihll", **where
        )
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(ConfigError, match=r"merge_and_unload"):
        loku_exp.evaluate(adapted, tokenizer, dataset="toy_tofu", **where)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("one text", "as a list; it is str"),
        (None, "as a list; it is NoneType"),
        ({"question": "Who?", "answer": "Nobody."}, "as a list; it is dict"),
        ([], "there are none"),
        (["a text", None], "item 1 is NoneType"),
        (["a text", {"question": "Who?"}], "item 1 is dict"),
        (pd.Series(["a text", float("nan")]), "item 1 is float"),
        (
            pd.DataFrame([{"question": "Who?", "answer": float("nan")}]),
            "item 0 has a value that is",
        ),
    ],
)
def test_what_is_no_list_of_texts_is_said(given, said, model, tokenizer, place, tmp_path):
    where, words = place
    with pytest.raises(DataError, match=f"forget: should be texts.*{said}"):
        loku_exp.unlearn(model, tokenizer, *words, forget=given, retain=TEXTS[4:], **where)
    assert not (tmp_path / "out").exists()


def test_a_mistake_is_said_before_a_model_is_written(model, tokenizer, place, tmp_path):
    where, words = place
    sets = {"forget": TEXTS[:4], "retain": TEXTS[4:]}
    for bad in ({"model": "a/folder", "tokenizer": tokenizer}, {"model": model, "tokenizer": None}):
        with pytest.raises(ConfigError, match=r"should be one of transformers in memory, not"):
            loku_exp.unlearn(*bad.values(), *words, **sets, **where)
    with pytest.raises(ConfigError, match="ghl"):
        loku_exp.unlearn(model, tokenizer, *words, loss="ghl", **sets, **where)
    assert not (tmp_path / "out/models").exists()


def test_a_mistake_is_said_before_a_reference_is_written(model, tokenizer, place, tmp_path):
    where, words = place
    asked = {"dataset": "toy_tofu", "reference": model, **where}
    with pytest.raises(ConfigError, match="rowss"):
        loku_exp.evaluate(model, tokenizer, *words[-1:], "evaluation.rowss=4", **asked)
    with pytest.raises(ConfigError, match="reference: should be one of transformers in memory"):
        loku_exp.evaluate(model, tokenizer, *words[-1:], **asked | {"reference": 7})
    assert not (tmp_path / "out/models").exists()


def test_results_lie_in_a_folder_of_whatever_name(model, tokenizer, place, tmp_path):
    """A backslash became two."""
    _, words = place
    where = tmp_path / 'a\\b "c"'
    loku_exp.evaluate(
        model, tokenizer, words[-1], "dataset.num_authors=8", "dataset.num_forget=2",
        "evaluation.rows=2", dataset="toy_tofu", output_dir=where,
    )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {where.name}


def test_threads_of_the_session_are_kept(model, tokenizer, place):
    where, words = place
    torch.set_num_threads(2)
    try:
        loku_exp.evaluate(
            model, tokenizer, words[-1], "dataset.num_authors=8", "dataset.num_forget=2",
            "evaluation.rows=2", dataset="toy_tofu", **where,
        )  # fmt: skip
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_what_a_call_padded_to_is_not_the_tokenizers_own(model, tokenizer, tmp_path):
    before = saved_model(model, tokenizer, tmp_path)
    tokenizer(["a question"], truncation=True, max_length=4)
    try:
        assert saved_model(model, tokenizer, tmp_path) == before
    finally:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()


def test_a_model_that_was_changed_on_the_disk_is_written_again(model, tokenizer, tmp_path):
    folder = saved_model(model, tokenizer, tmp_path)
    flip(folder / "model.safetensors")
    assert folder_digest(saved_model(model, tokenizer, tmp_path)) == folder.name
