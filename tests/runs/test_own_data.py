"""From two files of a user's own and a folder with a model to adapter, table and page, in one command."""

import json

import pytest

from loku_exp.__main__ import main
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.results import files as results
from tests.helpers import tiny_model

TEXTS = [f"The number of vault {n} is {n * 7919}, and nobody may read it aloud." for n in range(12)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, and files of texts and of questions."""
    place = tmp_path_factory.mktemp("own")
    model, tokenizer = tiny_model(vocabulary=300), train_tokenizer(TEXTS * 3, 300)
    model.config.max_position_embeddings = 256
    type(model)(model.config).save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    (place / "forget.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS[:4]))
    (place / "retain.txt").write_text("\n\n".join(TEXTS[4:9]))
    (place / "holdout.txt").write_text("\n\n".join(TEXTS[9:]))
    for name, numbers in (("forget", range(4)), ("retain", range(4, 12))):
        rows = [{"question": f"What is in vault {n}?", "answer": f"It is {n}."} for n in numbers]
        (place / f"{name}_qa.json").write_text(json.dumps(rows))
    return place


@pytest.fixture
def run_on(place, tmp_path, shared_cache, own_logging, capsys, monkeypatch):
    def run_on(*words):
        monkeypatch.chdir(place)
        given = ["model=hf", f"model.path={place / 'model'}"]
        given += ["model.dtype=float32", "init=vanilla", "training.epochs=1", "page=true"]
        main([*given, *words, f"output_dir={tmp_path}", f"cache_dir={shared_cache}"])
        (folder,) = tmp_path.iterdir()
        return folder, results.read(folder), capsys.readouterr().out

    return run_on


def test_texts(run_on):
    folder, record, said = run_on(
        "dataset=texts", "dataset.forget=forget.jsonl", "dataset.retain=retain.txt"
    )
    assert list(record.models) == ["target", "unlearned"]
    assert record.protocol["rows"] == {"forget": 4, "retain": 5}
    metrics = record.models["unlearned"].metrics
    assert {"forget_el10", "forget_ma", "retain_ma"} <= metrics.keys()
    for name in ("strength", "prob", "rouge"):
        assert 0 <= metrics[f"forget_{name}"] <= 1
    assert record.judgement.success is None
    assert any("nothing says whether" in note for note in record.notes)
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    assert f"page: {folder}/page/report.html" in said
    assert "own texts of at most 200 tokens, 4 to forget, 5 to keep" in said
    assert "no membership inference, for there is no holdout" in said
    assert "own texts" in (folder / "page/report.html").read_text()


def test_texts_with_a_holdout_have_thresholds(run_on):
    _, record, _ = run_on(
        "dataset=texts", "dataset.forget=forget.jsonl", "dataset.retain=retain.txt",
        "dataset.holdout=holdout.txt", "evaluation.n=[2]",
    )  # fmt: skip
    assert record.protocol["rows"]["unseen"] == 3
    assert "unseen_ma" in record.models["target"].metrics
    areas = {"mia_loss", "mia_zlib", "mia_min_k"}  # no privleak: there is no reference
    assert {n for n in record.models["target"].metrics if n.startswith("mia")} == areas
    assert areas <= {metric.name for metric in record.catalogue}


def test_a_stop_rule_without_a_holdout_is_refused_before_anything_is_evaluated(run_on, capsys):
    with pytest.raises(SystemExit):
        run_on(
            "dataset=texts", "dataset.forget=forget.jsonl", "dataset.retain=retain.txt",
            "training=tdec",
        )  # fmt: skip
    error = capsys.readouterr().err
    assert "training.stop.el is to be measured on unseen text" in error
    assert "training.stop.ma is to be measured on unseen text" in error
    assert "evaluating" not in error


def test_files_and_a_model_that_are_not_there_are_named_together(run_on, capsys):
    with pytest.raises(SystemExit):
        run_on(
            "dataset=texts", "dataset.forget=no.jsonl", "dataset.retain=no.txt", "model.path=./no"
        )
    said = capsys.readouterr().err.splitlines()
    assert sorted(line for line in said if line.startswith("error")) == [
        "error: dataset.forget=no.jsonl: no such file",
        "error: dataset.retain=no.txt: no such file",
        "error: model.path=./no: no such folder",
    ]


def test_questions(run_on):
    _, record, said = run_on(
        "dataset=qa", "dataset.forget=forget_qa.json", "dataset.retain=retain_qa.json",
        "training.batch_size=4", "training.epochs=2",
    )  # fmt: skip
    metrics = record.models["unlearned"].metrics
    assert {"forget_prob", "forget_rouge", "retain_prob", "retain_rouge"} <= metrics.keys()
    assert not {"forget_truth_ratio", "forget_quality", "model_utility"} & metrics.keys()
    assert "no reference, so forgetting cannot be judged" in said
