"""Two runs in pairs."""

import json
from types import SimpleNamespace

import pytest

from loku_exp.errors import UserError
from loku_exp.report.__main__ import main
from loku_exp.report.compare import compare
from loku_exp.results import files as results
from tests.report.factory import edit, tdec, tofu


def rewrite(folder, change):
    file = folder / results.EXAMPLES_FILE
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [change(row) for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def pair(tmp_path):
    """B's loss is A's plus 1 for the first author, plus 4 for the others."""
    a, b = tofu(tmp_path, loss="gd"), tofu(tmp_path, loss="ihl")
    (b / results.EXAMPLES_FILE).write_text((a / results.EXAMPLES_FILE).read_text())
    step = {"author 0": 1.0}
    rewrite(b, lambda row: row | {"loss": row["loss"] + step.get(row["group"], 4.0)})
    return a, b


def of(comparison, name, metric):
    (row,) = [d for d in comparison.differences if (d["set"], d["metric"]) == (name, metric)]
    return SimpleNamespace(**row)


def test_differences_by_hand(pair):
    comparison = compare(*pair, resamples=2000)
    row = of(comparison, "forget", "loss")
    assert row.difference == pytest.approx(3.0)  # (1 + 4 + 4) / 3, authors of equal size
    assert (row.rows, row.blocks) == (12, 3)
    # 1 / 27 of the draws take author 0 three times, 1 / 27 never: both ends are reached.
    assert (row.low, row.high) == (pytest.approx(1.0), pytest.approx(4.0))
    assert of(comparison, "forget", "log_ratio").difference == 0
    assert any("only 3 blocks" in note for note in comparison.notes)
    assert comparison.notes[0].startswith("The intervals are over evaluated rows")


def test_the_order_of_rows_does_not_matter(pair):
    before = compare(*pair, resamples=200)
    file = pair[1] / results.EXAMPLES_FILE
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert compare(*pair, resamples=200).differences == before.differences


def test_rows_as_blocks(pair):
    row = of(compare(*pair, block="row", resamples=200), "forget", "loss")
    assert row.blocks == 12
    assert 1.0 < row.low < 3.0 < row.high < 4.0


def test_texts_are_documents_whatever_domain_they_are_from(tmp_path):
    folders = tdec(tmp_path, loss="gd"), tdec(tmp_path, loss="ihl")
    for shift, folder in enumerate(folders):
        rows = [
            {"model": "unlearned", "set": "forget", "row": i, "group": "github", "tokens": 200,
             "ma": 0.2 + 0.01 * i + 0.1 * shift, "el10": 0.0}
            for i in range(12)
        ]  # fmt: skip
        (folder / results.EXAMPLES_FILE).write_text("".join(json.dumps(r) + "\n" for r in rows))
    comparison = compare(*folders, resamples=200)
    assert of(comparison, "forget", "ma").blocks == 12
    assert of(comparison, "forget", "ma").difference == pytest.approx(0.1)
    alone = compare(*folders, block="group", resamples=200)
    assert of(alone, "forget", "ma").low is None
    assert any("no interval" in note for note in alone.notes)


def test_files_and_table(pair, tmp_path, capsys):
    main(["compare", *map(str, pair), "--to", str(tmp_path / "out"), "--resamples", "100"])
    said = capsys.readouterr().out
    assert "forget set, loss" in said
    assert "+3.000" in said
    (file,) = (tmp_path / "out").glob("*.json")
    content = json.loads(file.read_text())
    assert content["differences"][0]["rows"] == 12
    assert content["seed"] == 0
    assert file.with_suffix(".csv").read_text().startswith("set,metric,label,a,b,difference,low")


@pytest.mark.parametrize(
    ("key", "value"), [("data_digest", "other"), ("truth_ratio", "arithmetic"), ("limit", 10)]
)
def test_other_data_or_scoring_are_no_pairs(pair, key, value):
    edit(pair[1], lambda record: record["protocol"].update({key: value}))
    with pytest.raises(UserError, match=f"differ in {key}"):
        compare(*pair)


def test_other_rows_or_tokens_are_no_pairs(pair):
    file = pair[1] / results.EXAMPLES_FILE
    whole = file.read_text()
    file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="evaluated other rows"):
        compare(*pair)
    file.write_text(whole)
    rewrite(pair[1], lambda row: row | {"tokens": row["tokens"] + 1})
    with pytest.raises(UserError, match="not the same texts"):
        compare(*pair)


def test_a_run_is_not_compared_with_itself(pair):
    with pytest.raises(UserError, match="give two runs"):
        compare(pair[0], pair[0].parent / pair[0].name)


def test_unknown_model_and_broken_lines(pair):
    with pytest.raises(UserError, match="did you mean 'unlearned'"):
        compare(*pair, model="unlearnt")
    with (pair[0] / results.EXAMPLES_FILE).open("a") as file:
        file.write("{\n")
    with pytest.raises(UserError, match="line 73 is not JSON"):
        compare(*pair)


def test_what_is_not_a_finite_number_in_every_row_is_left_out(pair):
    file = pair[1] / results.EXAMPLES_FILE
    rewrite(pair[1], lambda row: row | {"log_ratio": 123.0, "mine": 1})
    file.write_text(file.read_text().replace("123.0", "1e999"))
    found = compare(*pair, resamples=100)
    assert {d["metric"] for d in found.differences} == {"loss", "per_token"}
    assert "retain, mine: not compared, 12 of 24 rows lack it" in found.notes


def test_quantities_have_the_suites_words(pair):
    labels = {
        d["metric"]: d["label"]
        for d in compare(*pair, resamples=10).differences
        if d["set"] == "retain"
    }
    assert labels == {
        "loss": "retain set, loss",
        "log_ratio": "retain set, log ratio",
        "per_token": "retain set, probability per token",
    }


def test_other_seeds_of_the_bases_are_said(pair):
    edit(pair[1], lambda record: record["protocol"]["seeds"].update(target=7))
    assert "target seeds differ (0 and 7): not the method alone" in compare(*pair).notes


def test_members_and_holdout_are_not_averaged_together_nor_called_an_auc(pair):
    """Rows of membership hold losses: their mean stood under the label of the AUC over them."""
    score = {"model": "unlearned", "set": "mia", "member": True, "loss": 1.0}
    for step, folder in enumerate(pair):
        rows = [score | {"row": row, "group": f"author {row // 4}"} for row in range(12)]
        rows = [row | {"loss": row["loss"] + step} for row in rows]
        rows += [
            row | {"row": 12 + row["row"], "member": False, "group": f"holdout {row['group']}", "loss": 5.0}
            for row in rows
        ]  # fmt: skip
        with (folder / results.EXAMPLES_FILE).open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        word = {"name": "mia_loss", "label": "membership, AUC of loss", "unit": "all"}
        edit(folder, lambda record, word=word: record["catalogue"].append(word))
    comparison = compare(*pair, resamples=50)
    members, holdout = (of(comparison, f"mia of {part}", "loss") for part in ("members", "holdout"))
    assert (members.label, members.a, members.b) == ("membership of members, loss", 1.0, 2.0)
    assert (holdout.label, holdout.difference) == ("membership of holdout, loss", 0.0)
    assert members.blocks == 3  # authors, as in TOFU's other sets


def test_of_choices_the_accuracy_is_compared_and_no_number_of_an_option(pair):
    for step, folder in enumerate(pair):
        rows = [
            {"model": "unlearned", "set": "copa_local", "row": row, "gold": 1, "chosen": step,
             "logprobs": [-2.0, -1.0], "acc": float(step)}
            for row in range(4)
        ]  # fmt: skip
        with (folder / results.EXAMPLES_FILE).open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    found = compare(*pair, resamples=50).differences
    assert [(d["metric"], d["difference"]) for d in found if d["set"] == "copa_local"] == [
        ("acc", 1)
    ]
