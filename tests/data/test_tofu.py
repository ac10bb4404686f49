"""TOFU's splits, and what is said about folders that are not TOFU."""

import json
import os

import pytest

from loku_exp.data.tofu import load_tofu, problems
from loku_exp.errors import DataError
from tests.data.tofu_folder import rows, tofu_folder, write


@pytest.fixture
def folder(tmp_path):
    """See `tofu_folder`."""
    return tofu_folder(tmp_path)


def test_load_reads_a_folder(folder):
    corpus = load_tofu(path=str(folder), forget_split="forget10")
    assert [row.row for row in corpus.forget] == list(range(40, 60))
    assert corpus.reference_training == corpus.retain == corpus.target_training[:40]
    assert corpus.evaluation["forget"][0].group == "author 2"
    assert corpus.evaluation["forget"][0].row == 0
    authors = corpus.evaluation["authors"][0]
    assert authors.paraphrase == authors.answer  # official: the answer stands for the paraphrase
    assert corpus.protocol["retain_split"] == "retain90"


def test_a_holdout_is_of_authors_that_nothing_is_trained_on(folder):
    knobs = {"path": str(folder), "forget_split": "forget10", "holdout": True}
    assert "lacks holdout10.json" in problems(**knobs)[0]
    write(folder, "holdout10", rows(25, first=60))
    held_out = load_tofu(**knobs).evaluation["holdout"]
    assert [row.question for row in held_out] == [f"q{i}?" for i in range(60, 80)]  # as many
    assert "holdout" not in load_tofu(**knobs | {"holdout": False}).evaluation
    write(folder, "holdout10", rows(5, first=55))
    with pytest.raises(DataError, match=r"row 0 of holdout10 is in full, so it is no holdout"):
        load_tofu(**knobs)


def test_exclude_evaluated_leaves_those_rows_out_of_the_retain_set(folder):
    corpus = load_tofu(path=str(folder), forget_split="forget10", retain_draw="exclude_evaluated")
    assert [row.row for row in corpus.retain] == list(range(8, 40))
    assert len(corpus.reference_training) == 40


def test_line_separator_inside_a_text_is_no_line_end(folder):
    content = rows(60)
    content[3]["answer"] = "two\u2028lines"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    (folder / "full.json").write_text(lines, encoding="utf-8")
    assert (
        load_tofu(path=str(folder), forget_split="forget10").target_training[3].answer
        == "two\u2028lines"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{oops", "line 3: not JSON"),
        ("[1]", r"line 3: \[1\] is not a JSON object"),
        ("null", "line 3: null is not a JSON object"),
        ('{"question": "q42?"}', "line 3: lacks answer; it has question"),
        ('{"question": "q42?", "answer": null}', "line 3: 'answer' is null; it must be a text"),
        ('{"question": "q42?", "answer": 42}', "line 3: 'answer' is 42; it must be a text"),
        ('{"question": "q42?", "answer": NaN}', "line 3: 'answer': is nan"),
        ('{"question": "q42?", "answer": "a\\ud83d"}', r"line 3: 'answer': holds \\ud83d, half of"),
        ('{"question": "q42?", "answer": "a", "answer": "b"}', "line 3: the key 'answer' is there twice"),
    ],
)  # fmt: skip
def test_malformed_line_raises_with_its_number(folder, line, said):
    lines = (folder / "forget10.json").read_text().split("\n")
    lines[2] = line
    (folder / "forget10.json").write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"forget10\.json, {said}"):
        load_tofu(path=str(folder), forget_split="forget10")


def change(folder, name, row, **values):
    """Change one row of a file, numbered from 1."""
    content = [json.loads(line) for line in (folder / f"{name}.json").read_text().split("\n")[:-1]]
    content[row - 1] |= values
    write(folder, name, content)


@pytest.mark.parametrize(
    "blank", ["", " ", "\n", "\u200b", "\u200c \u200d", "\ufeff", "\u2060", "\u3000"]
)
@pytest.mark.parametrize(
    "split", ["full", "forget10", "forget10_perturbed", "world_facts_perturbed"]
)
def test_empty_answer_raises_with_its_row(folder, split, blank):
    change(folder, split, 1, answer=blank)
    with pytest.raises(DataError, match=rf"{split}\.json, line 1: 'answer' is empty"):
        load_tofu(path=str(folder), forget_split="forget10")


PERTURBED = ["forget10_perturbed", "retain_perturbed", "world_facts_perturbed"]


@pytest.mark.parametrize("split", PERTURBED)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is null; it must be a list of texts"),
        ([], r"is \[\]; it must be a list of texts"),
        ("one text", "is 'one text'; it must be a list of texts"),
        (["a", None], ", item 2, is null; it must be a text"),
        ([3, "a"], ", item 1, is 3; it must be a text"),
        (["a", "\u200b"], ", item 2, is empty"),
        ([["a"]], r", item 1, is \['a'\]; it must be a text"),
    ],
)
def test_wrong_answers_are_texts(folder, split, value, said):
    change(folder, split, 1, perturbed_answer=value)
    with pytest.raises(DataError, match=rf"{split}\.json, line 1: 'perturbed_answer' ?{said}"):
        load_tofu(path=str(folder), forget_split="forget10")


@pytest.mark.parametrize("split", PERTURBED)
@pytest.mark.parametrize("value", [None, 5, "", "\u200b", ["a"]])
def test_a_paraphrase_is_a_text(folder, split, value):
    change(folder, split, 1, paraphrased_answer=value)
    with pytest.raises(DataError, match=rf"{split}\.json, line 1: 'paraphrased_answer' is "):
        load_tofu(path=str(folder), forget_split="forget10")


@pytest.mark.parametrize("split", ["forget10_perturbed", "retain_perturbed"])
def test_a_paraphrase_is_not_replaced_by_the_answer(folder, split):
    """Where the official sets have one; without it, the truth ratio would be another quantity."""
    content = [json.loads(line) for line in (folder / f"{split}.json").read_text().split("\n")[:-1]]
    del content[2]["paraphrased_answer"]
    write(folder, split, content)
    with pytest.raises(DataError, match=rf"{split}\.json, line 3: lacks paraphrased_answer"):
        load_tofu(path=str(folder), forget_split="forget10")


def test_facts_have_paraphrases_throughout_or_not_at_all(folder):
    wrong = [rows(1, perturbed=3)[0], {"question": "q", "answer": "a", "perturbed_answer": ["b"]}]
    write(folder, "world_facts_perturbed", wrong)
    with pytest.raises(DataError, match=r"perturbed\.json, line 2: lacks paraphrased_answer"):
        load_tofu(path=str(folder), forget_split="forget10")
    write(folder, "world_facts_perturbed", wrong[:1])
    facts = load_tofu(path=str(folder), forget_split="forget10").evaluation["facts"]
    assert [(row.paraphrase, row.group) for row in facts] == [("p0", "row 0")]


# -- files that do not belong together ------------------------------------------------------------


def reorder(folder, name, places):
    lines = (folder / f"{name}.json").read_text().split("\n")[:-1]
    (folder / f"{name}.json").write_text("".join(f"{lines[i]}\n" for i in places))


@pytest.mark.parametrize(
    ("split", "size", "what"),
    [
        ("forget10", 20, "the last 20 rows of full"),
        ("forget10_perturbed", 20, "forget10"),
        ("retain90", 40, "full without forget10"),
        ("retain_perturbed", 8, "the first rows of retain90"),
    ],
)
def test_splits_have_the_order_of_full(folder, split, size, what):
    """Rows are paired with a reference and belong to authors by their place."""
    places = list(range(size))
    reorder(folder, split, [*places[:3], 4, 3, *places[5:]])
    with pytest.raises(DataError) as caught:
        load_tofu(path=str(folder), forget_split="forget10")
    assert f"{split}.json, line 4: {split} is not {what}: it asks" in str(caught.value)
    assert str(caught.value).endswith("; put it in that order")
    write(folder, split, rows(size, perturbed=5, first=100))
    with pytest.raises(DataError, match=r"line 1: .*; take all files from one release"):
        load_tofu(path=str(folder), forget_split="forget10")


@pytest.mark.parametrize(
    ("split", "kept", "said"),
    [
        ("forget10", 19, "forget10.json, line 1: forget10 is not the last 19 rows of full"),
        ("retain90", 39, r"retain90 in .* has 39 rows, full without forget10 40; the files do not"),
        ("forget10_perturbed", 19, r"forget10_perturbed in .* has 19 rows, forget10 20; "),
        ("full", 19, r"forget10 in .* has 20 rows, the last 20 rows of full 19"),
    ],
)
def test_splits_have_the_rows_of_full(folder, split, kept, said):
    reorder(folder, split, range(kept))
    with pytest.raises(DataError, match=said):
        load_tofu(path=str(folder), forget_split="forget10")


def test_more_evaluated_retain_rows_than_there_are(folder):
    write(folder, "retain_perturbed", rows(41, perturbed=5))
    with pytest.raises(DataError, match="has 41 rows, the first rows of retain90 40"):
        load_tofu(path=str(folder), forget_split="forget10")


def same_rows(folder, retain, forget):
    """A folder whose files belong together, with these rows to retain and to forget."""
    write(folder, "full", retain + forget)
    write(folder, "retain90", retain)
    write(folder, "forget10", forget)
    perturbed = {"paraphrased_answer": "p", "perturbed_answer": ["w"]}
    write(folder, "forget10_perturbed", [row | perturbed for row in forget])
    write(folder, "retain_perturbed", [row | perturbed for row in retain])


def test_what_is_forgotten_is_not_retained(folder):
    same_rows(folder, rows(20), rows(20))
    with pytest.raises(
        DataError, match=r"row 21 of full is to be forgotten, and row 1 of .* \('q0\?'\)"
    ):
        load_tofu(path=str(folder), forget_split="forget10")
    disguised = {"question": " Q3？ ", "answer": "A3"}
    same_rows(folder, rows(20), [*rows(5, first=30), disguised])
    with pytest.raises(DataError, match="row 26 of full is to be forgotten, and row 4 of"):
        load_tofu(path=str(folder), forget_split="forget10")
    other_answer = {"question": "q3?", "answer": "of another author"}
    same_rows(folder, rows(20), [*rows(5, first=30), other_answer])
    assert len(load_tofu(path=str(folder), forget_split="forget10").forget) == 6


def test_forget_set_that_is_everything(folder):
    same_rows(folder, rows(20), rows(20, first=20))
    write(folder, "full", rows(20, first=20))
    with pytest.raises(DataError, match=r"retain90 in .* has 20 rows, full without forget10 0"):
        load_tofu(path=str(folder), forget_split="forget10")


def test_other_answers_than_those_of_full_are_warned_of(folder, caplog):
    load_tofu(path=str(folder), forget_split="forget10")
    assert not caplog.records
    for number in (4, 6):
        change(folder, "forget10_perturbed", number, answer="another")
    load_tofu(path=str(folder), forget_split="forget10")
    (record,) = caplog.records
    said = "line 4: answers of forget10_perturbed are not those of full: 2"
    assert said in record.getMessage()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends_change_nothing(folder, encoding, newline):
    expected = load_tofu(path=str(folder), forget_split="forget10").digest()
    for file in folder.iterdir():
        file.write_bytes(file.read_text().replace("\n", newline).encode(encoding))
    assert load_tofu(path=str(folder), forget_split="forget10").digest() == expected


@pytest.mark.parametrize("split", ["full", "forget10", "retain_perturbed"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        ('{"question": "é"}'.encode("latin-1"), "line 1: not UTF-8"),
        (b"", "is empty"),
        (b"\n\n", "has no rows"),
        (b"\x80\x02}q\x00.", "line 1: "),
    ],
)  # fmt: skip
def test_files_that_are_none(folder, split, content, said):
    (folder / f"{split}.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"{split}\.json.*{said}"):
        load_tofu(path=str(folder), forget_split="forget10")


def test_an_array_is_read_as_lines_are(folder):
    expected = load_tofu(path=str(folder), forget_split="forget10").digest()
    for file in folder.iterdir():
        content = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
        file.write_text(json.dumps(content, indent=1))
    assert load_tofu(path=str(folder), forget_split="forget10").digest() == expected


def test_missing_split_is_a_problem_of_the_configuration(folder):
    (folder / "retain90.json").unlink()
    (folder / "full.json").rename(folder / "full.jsonl.gz")
    assert problems(path=str(folder), forget_split="forget10") == [
        f"dataset.path={folder} lacks full.json, retain90.json; it has full.jsonl.gz: unpack or rename it "
        "to full.json, one JSON object a line"
    ]


def test_something_else_where_a_file_is_expected(folder):
    (folder / "full.json").unlink()
    (folder / "full.json").mkdir()
    with pytest.raises(DataError, match=r"full\.json is a folder, not a file"):
        load_tofu(path=str(folder), forget_split="forget10")
    (folder / "full.json").rmdir()
    os.mkfifo(folder / "full.json")
    with pytest.raises(DataError, match=r"full\.json is no regular file"):
        load_tofu(path=str(folder), forget_split="forget10")


def test_a_wrong_answer_is_not_the_right_one(folder):
    file = folder / "forget10_perturbed.json"
    rows = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    rows[2]["perturbed_answer"][1] = rows[2]["answer"] + " "
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=r"line 3: 'perturbed_answer', item 2, is the answer itself"
    ):
        load_tofu(path=str(folder), forget_split="forget10")


def test_unknown_forget_split_lists_the_known_ones():
    (found,) = problems(path="owner/name", forget_split="forget07")
    assert found == "dataset.forget_split=forget07: choose one of forget01, forget05, forget10"
    assert len(problems(path="./nowhere", forget_split="forget07")) == 2


def test_path_that_is_neither_folder_nor_hub_id_is_a_problem():
    for path in ("./nowhere", "~/nowhere", "~nobody/x", "/" + "x" * 300, "a/b/c"):
        (found,) = problems(path=path, forget_split="forget10")
        assert "no such folder" in found
    assert problems(path="locuslab/TOFU", forget_split="forget10") == []


def test_hub_out_of_reach_says_how_to_give_a_folder(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(DataError, match=r"Couldn't reach.*dataset\.path=DIR"):
        load_tofu(path="locuslab/TOFU", forget_split="forget10")


def test_hub_rows_are_the_folder_rows(folder, monkeypatch):
    def from_folder(path, config, split):
        assert split == "train"
        assert path == "locuslab/TOFU"
        return [
            json.loads(line) for line in (folder / f"{config}.json").read_text().split("\n")[:-1]
        ]

    monkeypatch.setattr("datasets.load_dataset", from_folder)
    hub = load_tofu(path="locuslab/TOFU", forget_split="forget10")
    assert hub.digest() == load_tofu(path=str(folder), forget_split="forget10").digest()
    change(folder, "forget10_perturbed", 3, paraphrased_answer=None)
    with pytest.raises(
        DataError, match="locuslab/TOFU:forget10_perturbed, row 3: 'paraphrased_answer'"
    ):
        load_tofu(path="locuslab/TOFU", forget_split="forget10")
    write(folder, "full", [])
    with pytest.raises(DataError, match="locuslab/TOFU:full has no rows"):
        load_tofu(path="locuslab/TOFU", forget_split="forget10")


# -- draws and digests ----------------------------------------------------------------------------


def test_every_draw_has_a_digest_of_its_own(folder):
    digests = {
        load_tofu(path=str(folder), forget_split="forget10", retain_draw=draw).digest()
        for draw in ("uniform", "exclude_evaluated")
    }
    assert len(digests) == 2


def test_excluding_the_evaluated_rows_must_leave_some(folder):
    write(folder, "retain_perturbed", rows(40, perturbed=5))
    with pytest.raises(
        DataError, match="exclude_evaluated leaves no row to retain: all 40 are evaluated"
    ):
        load_tofu(path=str(folder), forget_split="forget10", retain_draw="exclude_evaluated")


# -- some of the authors --------------------------------------------------------------------------


@pytest.fixture
def authors(tmp_path):
    """A folder of 30 authors: three to forget, of retain authors the first four evaluated."""
    write(tmp_path, "full", rows(600))
    write(tmp_path, "forget10", rows(60, first=540))
    write(tmp_path, "retain90", rows(540))
    write(tmp_path, "forget10_perturbed", rows(60, perturbed=5, first=540))
    write(tmp_path, "retain_perturbed", rows(80, perturbed=5))
    for name in ("real_authors_perturbed", "world_facts_perturbed"):
        wrong = [{"question": "who?", "answer": "x", "perturbed_answer": ["y", "z", "u"]}]
        write(tmp_path, name, wrong)
    return tmp_path


def ids(rows):
    return [row.row for row in rows]


@pytest.mark.parametrize(
    ("number", "forgotten"), [(5, 1), (6, 1), (14, 1), (15, 2), (24, 2), (25, 3), (29, 3), (30, 3)]
)
def test_the_last_authors_are_forgotten_and_the_first_retained(authors, number, forgotten):
    """10 % of them, halves up, at least one; rows keep their ids."""
    corpus = load_tofu(path=str(authors), forget_split="forget10", authors=number)
    kept = number - forgotten
    assert ids(corpus.forget) == list(range(600 - 20 * forgotten, 600))
    assert ids(corpus.retain) == ids(corpus.reference_training) == list(range(20 * kept))
    assert corpus.target_training == corpus.retain + corpus.forget
    assert len({row.group for row in corpus.target_training}) == number
    whole = load_tofu(path=str(authors), forget_split="forget10")
    assert corpus.evaluation == whole.evaluation | {
        "forget": whole.evaluation["forget"][-20 * forgotten :]
    }
    evaluated = corpus.evaluation["forget"]
    assert [row.question for row in evaluated] == [row.question for row in corpus.forget]
    assert [row.group for row in evaluated] == [row.group for row in corpus.forget]
    assert corpus.protocol == {
        "forget_split": "forget10",
        "retain_split": "retain90",
        "retain_draw": "uniform",
        "authors": number,
        "label": f"TOFU, {number} of 30 authors",
    }


def test_all_authors_are_the_whole(authors):
    whole = load_tofu(path=str(authors), forget_split="forget10")
    everybody = load_tofu(path=str(authors), forget_split="forget10", authors=30)
    assert whole.digest() == everybody.digest()
    assert whole.protocol == {
        "forget_split": "forget10",
        "retain_split": "retain90",
        "retain_draw": "uniform",
    }
    digests = {
        load_tofu(path=str(authors), forget_split="forget10", authors=n).digest()
        for n in range(5, 31)
    }
    assert len(digests) == 26


def test_evaluated_authors_can_be_left_out_of_some(authors):
    corpus = load_tofu(
        path=str(authors), forget_split="forget10", authors=10, retain_draw="exclude_evaluated"
    )
    assert ids(corpus.retain) == list(range(80, 180))
    assert ids(corpus.reference_training) == list(range(180))
    assert ids(corpus.forget) == list(range(580, 600))
    assert len(corpus.evaluation["retain"]) == 80


@pytest.mark.parametrize("draw", ["uniform", "exclude_evaluated"])
@pytest.mark.parametrize("number", [-1, 0, 1, 4, 5, 31, 201])
def test_numbers_of_authors_that_do_not_fit(authors, number, draw):
    knobs = {"path": str(authors), "forget_split": "forget10", "retain_draw": draw}
    least = 6 if draw == "exclude_evaluated" else 5
    if number == least:
        assert problems(**knobs, authors=number) == []
        return
    (found,) = problems(**knobs, authors=number)
    assert found.startswith(
        f"dataset.authors={number}: {least} to 30 of the 30 authors can be used"
    )
    with pytest.raises(DataError) as caught:
        load_tofu(**knobs, authors=number)
    assert str(caught.value) == found
    for fitting in (least, 30):
        assert problems(**knobs, authors=fitting) == []
        assert load_tofu(**knobs, authors=fitting).retain


@pytest.mark.parametrize(
    ("split", "draw", "least"),
    [
        ("forget01", "uniform", 21),
        ("forget05", "uniform", 21),
        ("forget10", "uniform", 22),
        ("forget10", "exclude_evaluated", 23),
    ],
)
def test_numbers_of_authors_of_the_hubs_tofu(split, draw, least):
    knobs = {"path": "locuslab/TOFU", "forget_split": split, "retain_draw": draw}
    for number in (0, least - 1, 201):
        (found,) = problems(**knobs, authors=number)
        assert f"dataset.authors={number}: {least} to 200 of the 200 authors" in found
    assert problems(**knobs, authors=least) == problems(**knobs, authors=200) == []
    assert problems(**knobs, authors=None) == []


def test_authors_need_twenty_questions_each(folder):
    write(folder, "full", rows(64))
    write(folder, "retain90", rows(44))
    write(folder, "forget10", rows(20, first=44))
    write(folder, "forget10_perturbed", rows(20, perturbed=5, first=44))
    assert len(load_tofu(path=str(folder), forget_split="forget10").forget) == 20
    (found,) = problems(path=str(folder), forget_split="forget10", authors=2)
    assert "needs 20 questions an author; full has 64 rows" in found
    (folder / "full.json").write_text("{")
    (found,) = problems(path=str(folder), forget_split="forget10", authors=2)
    assert "full.json, line 1: not JSON" in found


# -- the real files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "number", "forgotten"),
    [
        ("forget01", 21, 1),
        ("forget01", 150, 2),
        ("forget05", 40, 2),
        ("forget10", 25, 3),
        ("forget10", 40, 4),
    ],
)
def test_some_real_authors(loku_data, split, number, forgotten):
    path = str(loku_data / "tofu")
    corpus = load_tofu(path=path, forget_split=split, authors=number)
    assert problems(path=path, forget_split=split, authors=number) == []
    assert ids(corpus.forget) == list(range(4000 - 20 * forgotten, 4000))
    assert ids(corpus.retain) == list(range(20 * (number - forgotten)))
    assert corpus.protocol["label"] == f"TOFU, {number} of 200 authors"
    last = load_tofu(path=path, forget_split="forget10").evaluation["forget"][-20 * forgotten :]
    evaluated = corpus.evaluation["forget"]
    assert [(r.question, r.answer, r.paraphrase, r.wrong, r.group) for r in evaluated] == [
        (r.question, r.answer, r.paraphrase, r.wrong, r.group) for r in last
    ]
    sizes = {name: len(rows) for name, rows in corpus.evaluation.items()}
    assert sizes == {"forget": 20 * forgotten, "retain": 400, "authors": 100, "facts": 117}


SIZES = [("forget01", 40, 3960), ("forget05", 200, 3800), ("forget10", 400, 3600)]


@pytest.mark.parametrize(("split", "forget", "retain"), SIZES)
def test_real_splits(loku_data, split, forget, retain):
    corpus = load_tofu(path=str(loku_data / "tofu"), forget_split=split)
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
