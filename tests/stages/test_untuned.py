"""A target that is fine-tuned here has the model it was made of beside it, asked what it can."""

import json

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.models.origin import ORIGIN_FILE
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.results import files as results
from loku_exp.results.table import header_and_rows
from loku_exp.run import run
from tests.helpers import tiny_model

QUESTIONS = [
    {"query": f"Question: What is {n}?", "choices": ["a number", "a name"], "gold": 0}
    for n in range(4)
]


@pytest.fixture(scope="module")
def start(tmp_path_factory, shared_cache):
    """Run on a tiny model given as a folder of pretrained weights, which says where they come from."""
    place = tmp_path_factory.mktemp("untuned")
    model, tokenizer = tiny_model(vocabulary=300), train_tokenizer(["What is it? A name."] * 9, 300)
    model.config.max_position_embeddings = 256
    type(model)(model.config).save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    (place / "base" / ORIGIN_FILE).write_text('{"origin": "dequantised from Q4_1"}')
    (place / "data").mkdir()
    lines = "\n".join(json.dumps(row) for row in QUESTIONS)
    (place / "data/arc_easy.jsonl").write_text(lines)

    def start(*abilities: str):
        given = [
            "model=hf", "dataset=toy_tofu", "dataset.num_authors=8", "dataset.num_forget=2",
            f"model.path={place / 'base'}", "model.dtype=float32", "model.attention=eager",
            "target.path=null", "target.min_known=0", "reference.source=train", "training.epochs=1",
            "init=vanilla", "evaluation.curve=none", "model.finetuning.epochs=1",
            "evaluation.rows=2", f"output_dir={place / 'out'}", f"cache_dir={shared_cache}",
        ]  # fmt: skip
        where = [f"evaluation.data_dir={place / 'data'}"] if abilities else []
        asked = f"evaluation.abilities=[{','.join(abilities)}]"
        return results.read(run(compose_config([*given, asked, *where])))

    return start


@pytest.mark.slow
def test_the_untuned_model_is_asked_what_it_can_and_nothing_else(start):
    record = start("local")
    assert list(record.models) == ["untuned", "target", "unlearned", "reference"]
    untuned = record.models["untuned"]
    assert (untuned.role, untuned.weights, untuned.reference) == ("untuned", "pretrained", None)
    assert set(untuned.metrics) == {"arc_easy_local_acc", "reasoning_local"}
    assert untuned.metrics.keys() < record.models["target"].metrics.keys()
    header, rows = header_and_rows(record)
    cells = {row[0]: row[1:] for row in rows}
    assert header[1] == "untuned"
    assert [label for label, values in cells.items() if values[0]]
    assert [note for note in record.notes if note.startswith("untuned: the pretrained model")]
    assert "pretrained, dequantised from Q4_1" in record.run.label


@pytest.mark.slow
def test_no_further_model_where_nothing_is_asked_of_it(start):
    assert "untuned" not in start().models
