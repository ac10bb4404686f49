"""The record of a run: written whole, read or refused by name."""

import json
import math

import pytest

from loku_exp.errors import UserError
from loku_exp.evaluation.catalogue import Metric
from loku_exp.results import files
from loku_exp.results.folder import mark_done
from tests.helpers import evaluation_of
from tests.results.records import record_of

WORDS = [
    Metric(name="forget_prob", label="forget set, probability"),
    Metric(name="a|b", label="a | b"),
]
ROW = {"set": "forget", "row": 1, "question": "Who?", "answer": "She.", "generation": "x\u2028y"}


@pytest.fixture
def folder(tmp_path):
    record = record_of(WORDS, ("relearn",))
    files.write(tmp_path, record, {name: evaluation_of({}, [ROW]) for name in record.models})
    return tmp_path


def test_what_is_written_is_read(folder):
    assert files.read(folder) == record_of(WORDS, ("relearn",))
    content = json.loads((folder / "metrics.json").read_text())
    assert next(iter(content)) == "schema"
    assert content["schema"] == 2
    rows = [json.loads(line) for line in (folder / "examples.jsonl").read_text().split("\n")[:-1]]
    assert rows == [{"model": name, **ROW} for name in content["models"]]


def test_the_table_for_people(folder):
    lines = (folder / "results.md").read_text().split("\n")
    assert lines[0] == "# phi on tofu · loss ihl · init fila, rank 8"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 2
    assert [line.replace("\\|", "").count("|") for line in table] == [8] * 4
    assert table[0] == (
        "|  | target | unlearned | reference | target+relearn | unlearned+relearn | reference+relearn |"
    )
    assert table[3].startswith("| a \\| b | ")
    assert "verdict on unlearned+relearn: said of unlearned+relearn  " in lines
    assert "  before: 'x\\u2028y'" in lines


def test_names_that_are_no_unicode_do_not_end_a_run(tmp_path):
    record = record_of(WORDS, notes=["data of caf\udce9"])
    files.write(tmp_path, record, {name: evaluation_of({}, [ROW]) for name in record.models})
    assert "data of caf\\udce9" in (tmp_path / "results.md").read_text()
    assert files.read(tmp_path).notes == ["data of caf\udce9"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_not_written(tmp_path, value):
    record = record_of(WORDS)
    evaluations = {name: evaluation_of({}) for name in record.models}
    record.models["reference"].metrics["forget_prob"] = value
    with pytest.raises(UserError) as caught:
        files.write(tmp_path, record, evaluations)
    assert "metrics.json: models.reference.metrics.forget_prob is no finite number" in str(
        caught.value
    )
    record = record_of(WORDS)
    record.curve[1].metrics["forget_prob"] = value
    with pytest.raises(UserError, match=r"curve\.1\.metrics\.forget_prob is no finite number"):
        files.write(tmp_path, record, evaluations)
    assert list(tmp_path.iterdir()) == []


def test_what_else_is_no_number_is_null(tmp_path):
    record = record_of(WORDS, training={"forget_loss": [1.0, math.nan]})
    files.write(tmp_path, record, {name: evaluation_of({}) for name in record.models})
    assert files.read(tmp_path).training == {"forget_loss": [1.0, None]}


def edited(folder, edit):
    file = folder / "metrics.json"
    content = json.loads(file.read_text())
    content = edit(content) or content
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("schema", "writer"), [(1, "an earlier"), (0, "an earlier"), (3, "a later"), (99, "a later")]
)
def test_another_schema_is_refused_by_name(folder, schema, writer):
    edited(folder, lambda content: content.update(schema=schema))
    with pytest.raises(UserError) as caught:
        files.read(folder)
    said = str(caught.value)
    assert f"has schema {schema}, written by {writer} version; this one reads schema 2" in said
    assert "run its command again with force=true" in said
    assert "damaged" not in said


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.pop("schema") and None, "schema"),
        (lambda c: [c], "cannot be interpreted"),
        (lambda c: c.pop("models") and None, "models: Field required"),
        (lambda c: c.update(unknown=1), "unknown: Extra inputs"),
        (lambda c: c["run"].update(seed="zero"), r"run\.seed: "),
        (
            lambda c: c["models"]["target"]["metrics"].update(x="much"),
            r"models\.target\.metrics\.x: ",
        ),
        (lambda c: c["models"]["target"]["metrics"].update(x=math.nan), "NaN is no number of JSON"),
        (lambda c: c["training"].update(loss=[1, math.inf]), "Infinity is no number of JSON"),
        (lambda c: c["catalogue"][0].update(form="percent"), r"catalogue\.0\.form: "),
    ],
)
def test_damage_is_named(folder, edit, said):
    edited(folder, edit)
    with pytest.raises(
        UserError, match=rf"metrics\.json is damaged \(.*({said}).*; run its command ag"
    ):
        files.read(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00\x01",
        b"null",
        b"3",
        b"[" * 100_000,
        b'{"schema": 2, "cost": 1e999}',
    ],
)
def test_what_is_no_record_is_damaged(folder, content):
    (folder / "metrics.json").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.json is damaged \("):
        files.read(folder)


def test_every_cut_of_the_file_is_damage(folder):
    file = folder / "metrics.json"
    whole = file.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged"):
            files.read(folder)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.json cannot be read \(No such file"):
        files.read(tmp_path)


def test_a_run_has_everything_once_it_has_the_attacks(folder):
    assert not files.has_everything(folder, [])
    mark_done(folder, "0123456789ab")
    assert files.has_everything(folder, [])
    assert files.has_everything(folder, ["relearn"])
    assert not files.has_everything(folder, ["relearn", "int4"])
