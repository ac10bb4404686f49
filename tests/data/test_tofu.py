"""TOFU's splits, and what is said about folders that are not TOFU."""

import json

import pytest

from loku_exp.data import tofu
from loku_exp.data.tofu import load, problems
from loku_exp.errors import DataError


def write(folder, name, rows):
    (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(count, perturbed=0, first=0):
    made = []
    for i in range(first, first + count):
        row = {"question": f"q{i}?", "answer": f"a{i}"}
        if perturbed:
            row |= {
                "paraphrased_answer": f"p{i}",
                "perturbed_answer": [f"w{i}{k}" for k in range(5)],
            }
        made.append(row)
    return made


@pytest.fixture
def folder(tmp_path):
    """A folder in TOFU's layout: 60 rows, the last 20 to forget."""
    write(tmp_path, "full", rows(60))
    write(tmp_path, "forget10", rows(20, first=40))
    write(tmp_path, "retain90", rows(40))
    write(tmp_path, "forget10_perturbed", rows(20, perturbed=5, first=40))
    write(tmp_path, "retain_perturbed", rows(8, perturbed=5))
    for name in ("real_authors_perturbed", "world_facts_perturbed"):
        wrong = [{"question": "who?", "answer": "x", "perturbed_answer": ["y", "z", "u"]}]
        write(tmp_path, name, wrong)
    return tmp_path


def test_load_reads_a_folder(folder):
    corpus = load(path=str(folder), forget_split="forget10")
    assert [row.row for row in corpus.forget] == list(range(40, 60))
    assert corpus.reference_training == corpus.retain == corpus.target_training[:40]
    assert corpus.evaluation["forget"][0].group == "author 2"
    assert corpus.evaluation["forget"][0].row == 0
    authors = corpus.evaluation["authors"][0]
    assert authors.paraphrase == authors.answer  # official: the answer stands for the paraphrase
    assert corpus.protocol["retain_split"] == "retain90"


def test_exclude_evaluated_leaves_those_rows_out_of_the_retain_set(folder):
    corpus = load(path=str(folder), forget_split="forget10", retain_draw="exclude_evaluated")
    assert [row.row for row in corpus.retain] == list(range(8, 40))
    assert len(corpus.reference_training) == 40


@pytest.mark.parametrize(
    ("line", "said"),
    [("", "line 3: empty line"), ("{oops", "line 3: not a json object"), ("[1]", "line 3: list")],
)
def test_malformed_line_raises_with_its_number(folder, line, said):
    lines = (folder / "forget10.json").read_text().split("\n")
    lines[2] = line
    (folder / "forget10.json").write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"forget10\.json, {said}"):
        load(path=str(folder), forget_split="forget10")


def test_line_separator_inside_a_text_is_no_line_end(folder):
    content = rows(60)
    content[3]["answer"] = "two\u2028lines"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    (folder / "full.json").write_text(lines, encoding="utf-8")
    assert (
        load(path=str(folder), forget_split="forget10").target_training[3].answer
        == "two\u2028lines"
    )


def test_empty_answer_raises_with_its_row(folder):
    content = rows(60)
    content[4]["answer"] = " "
    write(folder, "full", content)
    with pytest.raises(DataError, match=r"full\.json, row 5: 'answer' is missing or empty"):
        load(path=str(folder), forget_split="forget10")


def test_missing_split_is_a_problem_of_the_configuration(folder):
    (folder / "retain90.json").unlink()
    assert problems(path=str(folder), forget_split="forget10") == [
        f"dataset.path={folder} lacks retain90.json"
    ]


def test_mismatched_retain_split_is_refused(folder):
    (found,) = problems(path=str(folder), forget_split="forget01", retain_split="retain90")[:1]
    assert "retain90 does not belong to forget01" in found
    assert "retain99" in found


def test_unknown_forget_split_lists_the_known_ones():
    (found,) = problems(path="owner/name", forget_split="forget07")
    assert found == "dataset.forget_split=forget07: choose one of forget01, forget05, forget10"


def test_path_that_is_neither_folder_nor_hub_id_is_a_problem():
    assert "no such folder" in problems(path="./nowhere", forget_split="forget10")[0]
    assert problems(path="locuslab/TOFU", forget_split="forget10") == []


def test_splits_that_do_not_belong_together_raise(folder):
    write(folder, "forget10", rows(20, first=39))
    with pytest.raises(DataError, match="is not the last 20 rows of full"):
        load(path=str(folder), forget_split="forget10")


def test_hub_out_of_reach_says_how_to_give_a_folder(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(DataError, match=r"Couldn't reach.*dataset\.path=DIR"):
        load(path="locuslab/TOFU", forget_split="forget10")


def test_hub_rows_are_the_folder_rows(folder, monkeypatch):
    def from_folder(path, config, split):
        assert split == "train"
        assert path == "locuslab/TOFU"
        return list(tofu._read_json_lines(folder / f"{config}.json"))

    monkeypatch.setattr("datasets.load_dataset", from_folder)
    hub = load(path="locuslab/TOFU", forget_split="forget10")
    assert hub.digest() == load(path=str(folder), forget_split="forget10").digest()


SIZES = [("forget01", 40, 3960), ("forget05", 200, 3800), ("forget10", 400, 3600)]


@pytest.mark.parametrize(("split", "forget", "retain"), SIZES)
def test_real_splits(loku_data, split, forget, retain):
    corpus = load(path=str(loku_data / "tofu"), forget_split=split)
    assert (len(corpus.target_training), len(corpus.forget), len(corpus.retain)) == (
        4000,
        forget,
        retain,
    )
    sizes = {name: len(rows) for name, rows in corpus.evaluation.items()}
    assert sizes == {"forget": forget, "retain": 400, "authors": 100, "facts": 117}
    for evaluated, trained in zip(corpus.evaluation["forget"], corpus.forget, strict=True):
        assert (evaluated.question, evaluated.answer) == (trained.question, trained.answer)
        assert evaluated.group == trained.group
    assert len({row.group for row in corpus.forget}) == forget // 20
