"""TDEC's folder: which rows become what, nothing evaluated is trained on, every mistake is named."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from transformers import AutoTokenizer

from loku_exp.data import text as text_module
from loku_exp.data.overlap import overlaps
from loku_exp.data.tdec import load_tdec, problems
from loku_exp.data.text import token_map_digest
from loku_exp.errors import DataError
from loku_exp.models.tokenizer import train_tokenizer
from tests.data.tdec_folder import (
    ARRAY_ROWS,
    NO_TEMPLATE,
    words,
    write_arrays,
    write_csv,
    write_folder,
    write_set,
)

TOKENIZER = train_tokenizer([words(300, seed) for seed in range(3)], 300)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)


def loaded(folder, **knobs):
    """The forget set 4_0 at a short length."""
    return load_tdec(path=str(folder), **{"forget_size": 4, "length": 16, **knobs})


def docs(texts):
    return [text.row for text in texts]


# -- which rows become what ----------------------------------------------------------------------


def test_a_published_set(folder):
    corpus = loaded(folder)
    assert docs(corpus.forget) == [3, 5, 7, 9]
    assert corpus.forget[0].text == f'"{words(30, 3)}",\n{words(30, 1003)}'
    assert {text.group for text in corpus.forget} == {"part1"}
    assert {text.ids for text in corpus.forget} == {None}
    assert docs(corpus.siblings) == [1, 11, 13, 15]
    assert docs(loaded(folder, forget_set=1).forget) == [12, 14, 16, 18]
    assert docs(loaded(folder, forget_size=1).forget) == [3]
    assert corpus.protocol["forget_split"] == "4_0"
    assert docs(corpus.perplexity["pile"]) == list(range(12))


@pytest.mark.parametrize(
    ("size", "number", "expected"),
    [
        (1, 0, [5, 1, 9, 7, 11, 13, 15]),
        (4, 0, [1, 11, 13, 15]),
        (4, 1, [20, 22, 24, 15]),
        (128, 0, [12, 14, 16, 18, 20, 22, 24]),  # of the next set, without the row both have
        (128, 1, [5, 1, 3, 9, 7, 11, 13]),  # there is no set 2
    ],
)
def test_siblings_are_memorised_and_not_forgotten(folder, size, number, expected):
    corpus = loaded(folder, forget_size=size, forget_set=number)
    assert docs(corpus.siblings) == expected
    assert (
        docs(loaded(folder, forget_size=size, forget_set=number, siblings=2).siblings)
        == (expected[:2])
    )
    assert not set(docs(corpus.forget)) & set(docs(corpus.siblings))


def test_without_a_set_of_128_there_are_no_siblings(folder):
    (folder / "forget_sets/lm_extraction_128_0.csv").unlink()
    assert loaded(folder).siblings == []


def rewrite_set(folder, number, docs, texts):
    rows = [[doc, "part", texts.get(doc, words(30, 1000 + doc))] for doc in docs]
    write_csv(
        folder / f"forget_sets/lm_extraction_128_{number}.csv", ["doc_id", "corpus", "text"], rows
    )


def test_texts_that_share_a_passage_with_the_forget_set_are_no_siblings(folder):
    rewrite_set(folder, 0, [1, 3, 5, 7, 9, 11, 13], {11: f"new {loaded(folder).forget[0].text}"})
    assert docs(loaded(folder).siblings) == [1, 13]
    assert docs(loaded(folder, siblings=1, retain_siblings=9).memorised_retain) == [13]


def test_memorised_texts_to_retain_share_nothing_with_what_is_evaluated(folder):
    rewrite_set(folder, 0, [1, 11, 13, 15], {13: f"x {words(30, 1001)}"})
    corpus = loaded(folder, siblings=1, retain_siblings=9)
    assert (docs(corpus.siblings), docs(corpus.memorised_retain)) == ([1], [11, 15])
    assert docs(loaded(folder, siblings=2, retain_siblings=1).memorised_retain) == [15]
    assert corpus.protocol["retain_corpus"] == "wikitext + 2 memorised texts"


def test_unseen_texts_of_other_sets_share_nothing_with_a_memorised_one(folder):
    rewrite_set(folder, 0, [1, 11, 13], {})
    rewrite_set(folder, 1, [12, 14, 16, 18, 11], {14: words(30, 1001), 16: words(30, 1013)})
    corpus = loaded(folder, unseen_source="forget_sets", siblings=2, retain_siblings=1)
    assert (docs(corpus.siblings), docs(corpus.memorised_retain)) == ([1, 11], [13])
    assert sorted(docs(corpus.unseen)) == [12, 18]
    assert corpus.protocol["unseen_source"] == "forget_sets"
    assert len(loaded(folder, unseen_source="forget_sets", unseen=1).unseen) == 1
    corpus = loaded(folder, unseen_source="forget_sets", forget_set=1)
    assert set(docs(corpus.unseen)) <= {1, 11, 13}


def test_other_sets_are_needed_for_unseen_texts_of_them(folder):
    (folder / "forget_sets/lm_extraction_128_1.csv").unlink()
    with pytest.raises(DataError, match=r"no set of 128 with another number; use .*=pile"):
        loaded(folder, unseen_source="forget_sets")


def test_a_text_of_pile_that_is_forgotten_is_not_unseen(folder):
    rows = [(i, words(40, 2000 + i)) for i in range(12)]
    rows[4] = (4, loaded(folder).forget[0].text)
    write_csv(folder / "validation_data/pile.csv", ["", "text"], rows)
    assert sorted(docs(loaded(folder, unseen=99).unseen)) == [0, 1, 2, 3, *range(5, 12)]


def test_rows_of_the_arrays(folder):
    corpus, arrays = loaded(folder, rows=[30, 2], siblings=5), write_arrays(folder)
    assert docs(corpus.forget) == [30, 2]
    assert [text.ids for text in corpus.forget] == [tuple(arrays[30]), tuple(arrays[2])]
    assert {text.text for text in corpus.forget} == {None}
    assert len(set(docs(corpus.siblings))) == 5
    assert not {30, 2} & set(docs(corpus.siblings))
    assert all(text.ids == tuple(arrays[text.row]) for text in corpus.siblings)
    everything = loaded(folder, rows=[30, 2], siblings=999).siblings
    assert sorted(docs(everything)) == sorted(set(range(ARRAY_ROWS)) - {30, 2})
    assert corpus.protocol["forget_split"] == "2 benchmark rows"


def test_source_ids_gives_the_rows_of_the_arrays(folder, monkeypatch):
    monkeypatch.setattr(text_module, "GPT2_TOKEN_MAP", token_map_digest(TOKENIZER))
    arrays = write_arrays(folder)
    records = loaded(folder, source="ids", length=200).records(TOKENIZER, NO_TEMPLATE, 256)
    assert [r.prompt for r in records.forget] == [tuple(arrays[doc]) for doc in (3, 5, 7, 9)]
    assert [r.prompt for r in records.evaluation["sibling"]] == [
        tuple(arrays[doc]) for doc in (1, 11, 13, 15)
    ]
    assert loaded(folder, source="ids").protocol["source"] == "ids"
    plain = loaded(folder).records(TOKENIZER, NO_TEMPLATE, 256)
    assert plain.forget[0].prompt == tuple(TOKENIZER(loaded(folder).forget[0].text).input_ids[:16])


def test_unseen_rows_are_of_pile(folder):
    corpus = loaded(folder, unseen=5)
    assert len(set(docs(corpus.unseen))) == 5
    assert all(text == corpus.perplexity["pile"][text.row] for text in corpus.unseen)
    assert len(loaded(folder, unseen=99).unseen) == 12


def test_knobs_reach_the_corpus_and_the_protocol(folder):
    corpus = loaded(folder, count_padding=True, repeats=3, evaluated=7)
    assert (corpus.length, corpus.count_padding, corpus.repeats, corpus.evaluated) == (
        16,
        True,
        3,
        7,
    )
    assert not corpus.exact
    assert loaded(folder, source="ids").exact
    assert corpus.protocol == {
        "forget_split": "4_0",
        "source": "text",
        "length": 16,
        "retain_corpus": "wikitext",
        "unseen_source": "pile",
        "retain_rows": {"trained": 10, "evaluated": 10, "dropped": 0},
        "count_padding": True,
    }


# -- the retain corpus ---------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "count"), [(0.5, 10), (0.8, 16), (0.1, 2)])
def test_rows_are_trained_on_or_evaluated(folder, share, count):
    corpus = loaded(folder, retain_share=share)
    assert len(corpus.retain) == count
    assert sorted(docs([*corpus.retain, *corpus.held_out])) == list(range(20))
    assert docs(corpus.retain) == sorted(docs(corpus.retain))
    assert docs(corpus.retain) != list(range(count))
    assert corpus.perplexity["wikitext"] == corpus.held_out
    assert corpus.in_domain == {"wikitext"}


def test_draws_depend_on_their_seed_only(folder):
    def drawn(**knobs):
        corpus = loaded(folder, unseen=6, **knobs)
        return docs(corpus.retain), docs(corpus.unseen)

    one, other = drawn(), drawn(split_seed=1)
    assert one[0] != other[0]
    assert one[1] != other[1]
    assert one == drawn(forget_set=1) == drawn(siblings=1) == drawn(length=8)
    rows = [docs(loaded(folder, rows=[1, 2], siblings=9, split_seed=s).siblings) for s in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]


def test_the_same_split_in_every_process(folder):
    code = (
        "import sys; from loku_exp.data.tdec import load_tdec;"
        "print(load_tdec(path=sys.argv[1], forget_size=4, length=16, unseen=5).digest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={"PYTHONHASHSEED": seed, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert digests == {loaded(folder, unseen=5).digest()}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt"])
def test_a_file_of_ones_own(folder, tmp_path, suffix):
    texts, file = [words(20, 5000 + i) for i in range(8)], tmp_path / f"own.{suffix}"
    if suffix == "csv":
        write_csv(file, ["text"], [[text] for text in texts])
    elif suffix == "jsonl":
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        file.write_text("\n\n".join(texts))
    corpus = loaded(folder, retain=str(file), retain_share=0.75)
    assert (len(corpus.retain), len(corpus.held_out)) == (6, 2)
    assert {text.text for text in [*corpus.retain, *corpus.held_out]} == set(texts)
    assert {text.group for text in corpus.retain} == {"retain"}  # a name is no content
    assert len(corpus.perplexity["wikitext"]) == 20
    assert corpus.in_domain == frozenset()
    records = corpus.records(TOKENIZER, NO_TEMPLATE, 64)
    assert {"pile", "wikitext"} < set(records.evaluation)
    assert "wikitext_in_domain" not in records.evaluation


def test_rows_of_the_arrays_to_keep(folder):
    for knobs in ({}, {"rows": [5, 6], "siblings": 3}):
        corpus = loaded(folder, retain="rows", **knobs)
        known = {*docs(corpus.forget), *docs(corpus.siblings)}
        kept = {*docs(corpus.retain), *docs(corpus.held_out)}
        assert kept == set(range(ARRAY_ROWS)) - known
        arrays = write_arrays(folder)
        assert all(text.ids == tuple(arrays[text.row]) for text in corpus.retain)


def shared_rows(folder):
    """wikitext row 4 repeats pile row 2, row 6 a text to forget, row 8 a sibling, row 11 is row 10."""
    rows = [(i, words(40, 3000 + i)) for i in range(20)]
    rows[4] = (4, f"{words(3, 1)} {words(40, 2002)}")
    rows[6] = (6, f"{words(3, 2)} {words(30, 1005)}")
    rows[8] = (8, words(30, 1011))
    rows[11] = (11, rows[10][1])
    write_csv(folder / "validation_data/wikitext.csv", ["", "text"], rows)


def test_overlap_is_an_error_with_row_numbers(folder):
    shared_rows(folder)
    said = (
        r"dataset\.retain=wikitext: 3 rows share text .*"
        r"row 4 with row 2, row 6 with row 5, row 8 with row 11\); dataset\.overlap=drop"
    )
    with pytest.raises(DataError, match=said):
        loaded(folder)


def test_overlap_can_be_dropped(folder):
    shared_rows(folder)
    split = 0
    for seed in range(6):
        corpus = loaded(folder, overlap="drop", split_seed=seed)
        kept = docs([*corpus.retain, *corpus.held_out])
        assert not {4, 6, 8} & set(kept)
        evaluated = [*corpus.forget, *corpus.siblings, *corpus.perplexity["pile"]]
        assert overlaps(corpus.retain, [*evaluated, *corpus.held_out]) == {}
        assert len(corpus.retain) == 8
        assert corpus.protocol["retain_rows"] == {
            "trained": 8,
            "evaluated": len(corpus.held_out),
            "dropped": 20 - len(kept),
        }
        split += len(corpus.held_out) == 8  # rows 10 and 11 fell apart, and the evaluated one went
        assert len(corpus.held_out) in (8, 9)
    assert 0 < split < 6


def test_overlap_of_a_file_with_pile_when_rows_are_forgotten(folder, tmp_path):
    (tmp_path / "own.txt").write_text(
        "\n\n".join([*(words(30, 5000 + i) for i in range(9)), words(40, 2003)])
    )
    with pytest.raises(DataError, match="row 9 with row 3"):
        loaded(folder, rows=[1, 2], retain=str(tmp_path / "own.txt"))


def test_wikitext_is_evaluated_text_beside_a_corpus_of_ones_own(folder, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("\n\n".join([*(words(30, 5000 + i) for i in range(9)), words(40, 3007)]))
    with pytest.raises(DataError, match="row 9 with row 7"):
        loaded(folder, retain=str(own))
    (folder / "validation_data/wikitext.csv").unlink()
    corpus = loaded(folder, retain=str(own))
    assert set(corpus.perplexity) == {"pile"}
    assert len(corpus.retain) + len(corpus.held_out) == 10


def test_overlap_with_unseen_texts_of_other_sets(folder, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text("\n\n".join([*(words(30, 5000 + i) for i in range(9)), words(30, 1014)]))
    with pytest.raises(DataError, match="row 9 with row 14"):
        loaded(folder, retain=str(own), unseen_source="forget_sets", unseen=99)
    assert loaded(folder, retain=str(own)).retain


def test_overlap_within_the_arrays(folder):
    twins = np.random.default_rng(1).integers(0, 256, (ARRAY_ROWS, 100), dtype=np.uint16)
    twins[20] = twins[5]
    write_arrays(folder, preprefix=twins)
    with pytest.raises(DataError, match=r"retain=rows: 1 rows share .*row 20 with row 5"):
        loaded(folder, rows=[5, 6], siblings=1, retain="rows")


@pytest.mark.parametrize(
    ("count", "share", "said"),
    [
        (1, 0.5, "none to train on"),
        (1, 0.9, "none to evaluate"),
        (2, 0.1, "none to train on"),
    ],
)
def test_nothing_to_train_on_or_to_evaluate(folder, tmp_path, count, share, said):
    rows = [[words(40, 5000 + i)] for i in range(count)]
    write_csv(tmp_path / "own.csv", ["text"], rows)
    with pytest.raises(DataError, match=rf"retain=.*own\.csv.*{said}"):
        loaded(folder, retain=str(tmp_path / "own.csv"), retain_share=share)


def test_dropping_everything_leaves_nothing(folder, tmp_path):
    write_csv(tmp_path / "own.csv", ["text"], [[words(40, 2000 + i)] for i in range(6)])
    with pytest.raises(DataError, match="none to train on"):
        loaded(folder, retain=str(tmp_path / "own.csv"), overlap="drop")


def test_too_small_a_corpus_is_said_when_it_is_packed(folder, tmp_path):
    write_csv(tmp_path / "own.csv", ["text"], [[f"t{i}"] for i in range(4)])
    corpus = loaded(folder, retain=str(tmp_path / "own.csv"))
    with pytest.raises(DataError, match=r"less than one sequence of dataset.length=16"):
        corpus.records(TOKENIZER, NO_TEMPLATE, 64)


# -- what is wrong with a folder -----------------------------------------------------------------


@pytest.mark.parametrize("path", ["~nobody/tdec", "/" + "x" * 300, "a\0b"])
def test_names_that_can_be_no_folder(path):
    assert "no such folder" in problems(path=path)[0]


def test_no_such_folder(tmp_path):
    said = problems(path=str(tmp_path / "none"))
    assert len(said) == 1
    assert "no such folder. TDEC is not on the hub. Put the forget sets" in said[0]
    with pytest.raises(DataError, match="no such folder"):
        load_tdec(path=str(tmp_path / "none"))


@pytest.mark.parametrize(("size", "number"), [(4, 2), (8, 0), (32, 0), (4, None)])
def test_a_set_the_folder_lacks(folder, size, number):
    (folder / "forget_sets/lm_extraction_4_x.csv").write_text("")
    (folder / "forget_sets/notes_4_7.csv").write_text("")
    with pytest.raises(DataError) as caught:
        loaded(folder, forget_size=size, forget_set=number)
    message = str(caught.value)
    assert f"dataset.forget_set={number} of size {size}: " in message
    assert "has 1_0, 4_0, 4_1, 128_0, 128_1 (size_number)" in message
    assert "dataset.rows=[...]" in message


def test_a_folder_without_sets(folder):
    for file in (folder / "forget_sets").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"has none \(size_number\)"):
        loaded(folder)


@pytest.mark.parametrize(
    ("knobs", "missing", "said"),
    [
        ({}, "pile", "lacks validation_data/pile.csv, which thresholds are measured on"),
        ({}, "wikitext", "lacks validation_data/wikitext.csv, which is the retain corpus; or set"),
        ({"rows": []}, None, "dataset.rows must be different row numbers from 0, at least one"),
        ({"rows": [1, 1]}, None, "dataset.rows must be different"),
        ({"rows": [-1]}, None, "dataset.rows must be different"),
        ({"rows": [1, 40]}, None, "row 40 does not exist, the arrays have 40"),
        ({"retain_share": 0.0}, None, "dataset.retain_share must lie between 0 and 1"),
        ({"retain_share": 1.0}, None, "dataset.retain_share must lie between 0 and 1"),
        ({"retain": "~/no-such.tsv"}, None, "is not a csv, json, jsonl, parquet or txt file"),
        ({"retain": "~/no-such.parquet"}, None, "no file .*no-such.parquet"),
        ({"retain": "no-such.csv"}, None, "no file no-such.csv"),
    ],
)
def test_what_is_wrong_is_said(folder, knobs, missing, said):
    if missing:
        (folder / f"validation_data/{missing}.csv").unlink()
    with pytest.raises(DataError, match=said):
        loaded(folder, **knobs)


def test_problems_are_said_at_once_and_none_of_a_good_folder(folder):
    assert problems(path=str(folder), rows=None, forget_set=0, forget_size=4, retain="rows") == []
    (folder / "validation_data/wikitext.csv").unlink()
    knobs = {"path": str(folder), "rows": None, "forget_set": 0, "forget_size": 4}
    assert problems(**knobs, retain="own.txt") == []
    (folder / "validation_data/pile.csv").unlink()
    assert len(problems(**knobs | {"forget_set": 9}, retain="wikitext", retain_share=0)) == 4


@pytest.mark.parametrize(
    ("column", "rows", "said"),
    [
        (["doc_id", "text"], [(1, "a")], r"4_0\.csv, row 1: lacks corpus; it has doc_id, text"),
        (["doc_id", "corpus", "text"], [(1, "a", "b"), (2, "a", "")], "4_0.csv, row 2: 'text' is"),
        (["doc_id", "corpus", "text"], [(1, "a", "b"), ("x2", "a", "c")], "row 2: doc_id 'x2' is"),
        (["doc_id", "corpus", "text"], [(1, "a", "b"), ("-2", "a", "c")], "row 2: doc_id '-2' is"),
        (
            ["doc_id", "corpus", "text"],
            [(1, "a", "b"), (1, "a", "c")],
            "row 2: doc_id 1 is there tw",
        ),
        (["doc_id", "corpus", "text"], [], r"4_0\.csv has no rows"),
        (["doc_id", "corpus", "text"], [("²", "a", "b")], "row 1: doc_id '²' is not a row number"),
        (["doc_id", "corpus", "text"], [("٣", "a", "b")], "row 1: doc_id '٣' is not a row number"),
        (["doc_id", "corpus", "text"], [("9" * 5000, "a", "b")], "row 1: doc_id '9999"),
        (
            ["doc_id", "corpus", "text"],
            [("7", "a", "b"), ("007", "a", "c")],
            "row 2: doc_id 7 is th",
        ),
        (["doc_id", "corpus", "text"], [(1, "a", "\u200b \ufeff")], "row 1: 'text' is empty"),
        (["doc_id", "text", "text"], [(1, "a", "b")], "has two columns 'text'"),
    ],
)
def test_what_is_wrong_with_a_forget_set_is_said(folder, column, rows, said):
    write_csv(folder / "forget_sets/lm_extraction_4_0.csv", column, rows)
    with pytest.raises(DataError, match=said):
        loaded(folder)


@pytest.mark.parametrize("knobs", [{"rows": [1]}, {"source": "ids"}, {"retain": "rows"}])
@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"prefix": np.zeros((40, 51), np.uint16)}, r"train_prefix\.npy is uint16 of .*\(40, 51\)"),
        ({"suffix": np.zeros(40, np.uint16)}, r"train_suffix\.npy is uint16 of shape \(40,\)"),
        ({"preprefix": np.zeros((40, 100))}, r"preprefix\.npy is float64 .* not integers \(rows, 100"),
        ({"suffix": np.zeros((39, 50), int)}, r"numbers of rows: .*prefix\.npy 40, train_suffix\.npy 39"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(folder, knobs, replaced, said):
    write_arrays(folder, **replaced)
    with pytest.raises(DataError, match=said):
        loaded(folder, **knobs)


def npz(file):
    np.savez(file.with_suffix(""), np.zeros((40, 50), int))
    file.with_suffix(".npz").rename(file)


def pickled(file):
    file.write_bytes(pickle.dumps(np.zeros((40, 50), int)))


def cut(file):
    file.write_bytes(file.read_bytes()[:-7])


def promising(file):
    """A head that promises more than any memory holds."""
    head = {"descr": "<u2", "fortran_order": False, "shape": (10**13, 50)}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, head)


def saved(array):
    return lambda file: np.save(file, array, allow_pickle=True)


def written(content):
    return lambda file: file.write_bytes(content)


def changed_head(file):
    file.write_bytes(file.read_bytes().replace(b"shape", b"shap\n"))


NO_ARRAY = "is no array of numbers"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "is a Git LFS pointer",
        ),
        (written(b"<!DOCTYPE html><title>not found</title>"), NO_ARRAY),
        (written(b"\x93NUMPY"), NO_ARRAY),
        (written(b""), "is empty"),
        (changed_head, NO_ARRAY),
        (pickled, NO_ARRAY),
        (cut, NO_ARRAY),
        (promising, NO_ARRAY),
        (npz, "is an archive"),
        (saved(np.full((40, 50), "a", object)), f"{NO_ARRAY} .*Object arrays"),
        (
            saved(np.full((40, 50), 50_257)),
            "has ids from 50257 to 50257; GPT-2's ids are 0 to 50256",
        ),
        (saved(np.full((40, 50), -1)), "has ids from -1 to -1; GPT-2's ids"),
        (saved(np.zeros((0, 50), int)), "has no rows"),
        (saved(np.zeros((40, 50), bool)), r"is bool of shape \(40, 50\), not integers"),
        (saved(np.zeros((40, 50), [("a", int)])), "is .*, not integers"),
    ],
)
def test_files_that_hold_no_array(folder, damage, said):
    damage(folder / "lm_extraction_benchmark/train_suffix.npy")
    with pytest.raises(DataError, match=rf"train_suffix\.npy {said}") as caught:
        loaded(folder, source="ids")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["<i8", ">u2", "<u8", "i1"])
def test_ids_are_whole_numbers_whatever_the_arrays_hold(folder, kind):
    """Parts of uint64 and int64 would become floats when they are joined."""
    ours = np.arange(40 * 50).reshape(40, 50) % 120
    arrays = write_arrays(folder, suffix=ours.astype(kind), prefix=ours.astype("<i8"))
    (text, *_) = loaded(folder, rows=[7, 3]).forget
    assert text.ids == (*arrays[7, :100].tolist(), *ours[7].tolist(), *ours[7].tolist())
    assert {type(token) for token in text.ids} == {int}


def test_arrays_are_only_needed_for_ids(folder):
    (folder / "lm_extraction_benchmark/train_prefix.npy").unlink()
    loaded(folder)
    for knobs in ({"rows": [1]}, {"source": "ids"}, {"retain": "rows"}):
        with pytest.raises(
            DataError, match=r"no file .*train_prefix\.npy, which dataset.source=ids"
        ):
            loaded(folder, **knobs)


def test_a_published_row_beyond_the_arrays(folder):
    write_set(folder, 4, 0, [3, 5, 41])
    assert docs(loaded(folder).forget) == [3, 5, 41]
    said = r"lm_extraction_4_0\.csv, row 3: row 41 does not exist, the arrays have 40"
    with pytest.raises(DataError, match=said):
        loaded(folder, source="ids")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_change_nothing(folder, encoding):
    expected = loaded(folder).digest()
    for file in folder.rglob("*.csv"):
        file.write_bytes(file.read_bytes().decode().encode(encoding))
    assert loaded(folder).digest() == expected


def test_a_folder_as_windows_copies_it(folder):
    """With lines that end in CRLF, also those within texts."""
    expected = loaded(folder).digest()
    for file in folder.rglob("*.csv"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert loaded(folder).digest() == expected


@pytest.mark.parametrize("name", ["forget_sets/lm_extraction_4_0", "validation_data/pile"])
def test_pointers_in_place_of_files(folder, name):
    (folder / f"{name}.csv").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    with pytest.raises(DataError, match=rf"{name}\.csv is a Git LFS pointer.*git lfs pull"):
        loaded(folder)


def test_other_files_beside_the_sets_are_left_alone(folder):
    for name in ("lm_extraction_128_x", "lm_extraction_128_1.old", "notes"):
        (folder / f"forget_sets/{name}.csv").write_text("anything")
    assert loaded(folder, unseen_source="forget_sets").unseen


def test_no_unseen_text_is_said_before_anything_is_trained(folder):
    texts = [text.text for text in loaded(folder).forget]
    write_csv(folder / "validation_data/pile.csv", ["text"], [[text] for text in texts])
    with pytest.raises(DataError, match=r"unseen_source: all of its 4 texts share a passage"):
        loaded(folder)


# -- the real folder -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tdec(loku_data):
    return loku_data / "tdec"


@pytest.fixture(scope="module")
def gpt2(loku_data):
    return AutoTokenizer.from_pretrained(loku_data / "tokenizers/gpt2")


SHARING = [11, 2, 6]  # texts of the sets of 128 that share 30 words with the forget set of 32


def forget_records(tdec, tokenizer, **knobs):
    return (
        load_tdec(path=str(tdec), length=999, **knobs).records(tokenizer, NO_TEMPLATE, 1024).forget
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "lengths", "exact"),
    [
        (0, {200: 30, 201: 1, 202: 1}, 29),
        (1, {189: 1, 198: 1, 199: 1, 200: 28, 201: 1}, 28),
        (2, {200: 32}, 30),
    ],
)
def test_lengths_of_the_published_sets(tdec, gpt2, number, lengths, exact):
    knobs = {"forget_set": number, "unseen": 1, "siblings": 1}
    records = forget_records(tdec, gpt2, **knobs)
    assert Counter(len(record.prompt) for record in records) == lengths
    corpus = load_tdec(path=str(tdec), source="ids", **knobs)
    rows = {text.row: text.ids for text in corpus.forget}
    assert sum(record.prompt == rows[record.row] for record in records) == exact


@pytest.mark.slow
def test_the_published_sets_are_nested_and_disjoint_between_seeds(tdec):
    def rows(size, number):
        corpus = load_tdec(path=str(tdec), forget_size=size, forget_set=number, siblings=128)
        assert not set(docs(corpus.forget)) & set(docs(corpus.siblings))
        others = {128: 128 - (number == 0)}.get(size, 128 - size)
        apart[size, number] = others - len(corpus.siblings)
        return set(docs(corpus.forget))

    apart = {}
    sets = {(size, n): rows(size, n) for size in (1, 4, 8, 32, 128) for n in (0, 1, 2)}
    assert all(len(found) == size for (size, _), found in sets.items())
    for number in (0, 1, 2):
        for size in (1, 4, 8):
            assert sets[size, number] <= sets[32, number] <= sets[128, number]
    for one, other in combinations((0, 1, 2), 2):
        assert not sets[32, one] & sets[32, other]
    assert len(sets[128, 0] & sets[128, 1]) == 1
    assert [apart[32, n] for n in (0, 1, 2)] == SHARING


@pytest.mark.slow
def test_ids_are_the_rows_of_the_arrays_for_models_with_gpt2s_tokens(loku_data, tdec, gpt2):
    names = ("preprefix", "prefix", "suffix")
    parts = [np.load(tdec / f"lm_extraction_benchmark/train_{name}.npy") for name in names]
    arrays = np.concatenate(parts, axis=1)
    corpus = load_tdec(path=str(tdec), source="ids", siblings=96, unseen=64)
    phi, llama = (
        AutoTokenizer.from_pretrained(loku_data / f"tokenizers/{name}")
        for name in ("phi-1_5", "llama-2")
    )
    for tokenizer in (gpt2, phi):
        records = corpus.records(tokenizer, NO_TEMPLATE, 2048)
        rows = [*records.forget, *records.evaluation["sibling"]]
        assert [r.prompt for r in rows] == [tuple(arrays[r.row].tolist()) for r in rows]
        assert len(rows) == 128 - 14  # that share 30 words or 30 ids with the forget set
        lengths = {len(r.prompt) for r in [*rows, *records.retain, *records.evaluation["retain"]]}
        assert lengths == {200}
        trained = {r.prompt for r in records.target_training}
        assert not trained & {r.prompt for r in records.evaluation["retain"]}
        assert len(records.evaluation["wikitext_in_domain"]) == len(corpus.held_out)
        assert len(records.evaluation["pile"]) == 1500
    with pytest.raises(DataError, match="token ids are GPT-2's"):
        corpus.records(llama, NO_TEMPLATE, 2048)
    text = load_tdec(path=str(tdec)).records(llama, NO_TEMPLATE, 2048)  # text suits every tokenizer
    assert {record.prompt[0] for record in text.forget} == {llama.bos_token_id}


@pytest.mark.slow
def test_the_real_corpora_share_nothing_with_what_is_evaluated(tdec):
    for number in (0, 1, 2):
        corpus = load_tdec(path=str(tdec), forget_set=number, overlap="drop", siblings=96)
        assert overlaps(corpus.retain, corpus.held_out) == {}
        assert overlaps(corpus.retain, corpus.perplexity["pile"]) == {}
        assert overlaps(corpus.retain, [*corpus.forget, *corpus.siblings]) == {}
        counted = corpus.protocol["retain_rows"]
        assert counted["trained"] + counted["evaluated"] + counted["dropped"] == 500


def test_a_tokenizer_of_ones_own_on_the_real_texts(tdec):
    corpus = load_tdec(path=str(tdec), siblings=8, unseen=8)
    own = train_tokenizer(corpus.texts(NO_TEMPLATE), 1000)
    records = corpus.records(own, NO_TEMPLATE, 256)
    assert {len(record.prompt) for record in records.forget} == {200}
    assert max(max(record.prompt) for record in records.retain) < 1000
