"""Texts become sequences of one length, all labelled, and their identity is their content."""

import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from transformers import AutoTokenizer

from loku_exp.data import text as text_module
from loku_exp.data.text import (
    GPT2_TOKEN_MAP,
    Text,
    TextCorpus,
    check_gpt2,
    gpt2_text,
    pack,
    token_map_digest,
)
from loku_exp.data.text_files import read_rows
from loku_exp.errors import DataError
from loku_exp.models.tokenizer import train_tokenizer
from tests.data.tdec_folder import NO_TEMPLATE, words

TOKENIZER = train_tokenizer([words(200, seed) for seed in range(3)], 300)
EOS = TOKENIZER.eos_token_id


def text(row, count, seed=None):
    return Text(row, f"g{row}", words(count, row if seed is None else seed))


def array_row(row, count=12):
    return Text(row, "benchmark", None, tuple((row * 31 + i * 7) % 256 for i in range(count)))


def corpus(**changed):
    values = {
        "length": 12,
        "forget": [text(0, 9), text(5, 8)],
        "siblings": [text(7, 9)],
        "retain": [text(i, 5, 100 + i) for i in range(6)],
        "held_out": [text(i, 5, 200 + i) for i in range(6)],
        "unseen": [text(i, 9, 300 + i) for i in range(3)],
        "protocol": {"length": 12},
        "perplexity": {"pile": [text(i, 40, 400 + i) for i in range(2)]},
        "evaluated": 4,
    }
    return TextCorpus(**values | changed)


def ids(row):
    return tuple(TOKENIZER(row.text).input_ids)


def encode(changed=None, max_length=64):
    return corpus(**changed or {}).records(TOKENIZER, NO_TEMPLATE, max_length)


def all_records(records):
    sets = [
        records.target_training, records.reference_training, records.forget, records.retain,
        *records.evaluation.values(),
    ]  # fmt: skip
    return [record for rows in sets for record in rows]


# -- packing -------------------------------------------------------------------------------------


def test_packing_puts_end_of_text_after_each_and_drops_the_remainder():
    packed = pack([(1, 2, 3), (4,), (5, 6, 7, 8), (9,)], "retain", 5, 0)
    assert [record.prompt for record in packed] == [(1, 2, 3, 0, 4), (0, 5, 6, 7, 8)]
    assert [record.row for record in packed] == [0, 1]
    assert {(record.role, record.group) for record in packed} == {("retain", "packed")}
    assert [r.prompt for r in pack([(1, 2), (3, 4)], "retain", 3, 0)] == [(1, 2, 0), (3, 4, 0)]
    assert pack([], "retain", 5, 0) == []


def test_packing_too_little_says_how_much_there_is():
    with pytest.raises(
        DataError,
        match=r"the 2 rows .* serve as 'retain' have 5 tokens, less than .*length=6.*=FILE",
    ):
        pack([(1, 2), (3,)], "retain", 6, 0)
    assert len(pack([(1, 2), (3,)], "retain", 5, 0)) == 1


# -- records -------------------------------------------------------------------------------------


def test_texts_are_cut_and_corpora_are_packed():
    records, source = encode(), corpus()
    assert [record.prompt for record in records.forget] == [ids(r)[:12] for r in source.forget]
    assert [(r.row, r.group, r.role) for r in records.forget] == [
        (0, "g0", "forget"),
        (5, "g5", "forget"),
    ]
    for name, rows in (("sibling", source.siblings), ("unseen", source.unseen)):
        assert [r.prompt for r in records.evaluation[name]] == [ids(row)[:12] for row in rows]
        assert {r.role for r in records.evaluation[name]} == {name}
    stream = [token for row in source.retain for token in (*ids(row), EOS)]
    assert [token for r in records.retain for token in r.prompt] == stream[: len(stream) // 12 * 12]
    other = [token for row in source.held_out for token in (*ids(row), EOS)]
    assert [token for r in records.evaluation["retain"] for token in r.prompt] == other[: 4 * 12]
    assert records.evaluation["forget"] == records.forget


def test_every_token_is_labelled():
    for record in all_records(encode({"forget": [text(0, 1), text(5, 8)]})):
        assert record.answer.ids == record.answer.labels == record.prompt
        assert record.answer.num_labels == len(record.prompt) - 1


def test_short_texts_stay_short_unless_padding_counts():
    short = {"forget": [text(0, 1), text(5, 9)], "siblings": [text(7, 1)], "unseen": [text(8, 1)]}
    plain, padded = encode(short), encode(short | {"count_padding": True})
    length = len(ids(short["forget"][0]))
    assert 2 <= length < 12
    for name, row in (("forget", text(0, 1)), ("sibling", text(7, 1)), ("unseen", text(8, 1))):
        filled = ids(row) + (EOS,) * (12 - len(ids(row)))
        assert plain.evaluation[name][0].prompt == ids(row)
        assert padded.evaluation[name][0].prompt == filled
        assert padded.evaluation[name][0].answer.labels == filled
    assert padded.evaluation["forget"][1] == plain.evaluation["forget"][1]
    assert padded.forget == plain.forget  # the loss masks padding, as the predecessor's does
    assert padded.target_training == plain.target_training
    assert padded.evaluation["pile"] == plain.evaluation["pile"]


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_reference_never_sees_the_forget_set(repeats):
    records = encode({"repeats": repeats})
    prompts = [record.prompt for record in records.target_training]
    for record in records.forget + records.evaluation["sibling"]:
        assert prompts.count(record.prompt) == repeats
    assert prompts[-len(records.retain) :] == [record.prompt for record in records.retain]
    assert len(prompts) == 3 * repeats + len(records.retain)
    forgotten = {record.prompt for record in records.forget}
    assert records.reference_training == [
        record for record in records.target_training if record.prompt not in forgotten
    ]
    assert len(records.reference_training) == repeats + len(records.retain)
    trained = {record.prompt for record in records.target_training}
    assert not trained & {r.prompt for r in records.evaluation["retain"]}
    assert not trained & {r.prompt for r in records.evaluation["unseen"]}


@pytest.mark.parametrize("repeats", [1, 3])
def test_memorised_texts_of_the_retain_set_are_trained_on_and_not_evaluated(repeats):
    memorised, plain = [text(8, 9), text(9, 9)], encode({"repeats": repeats})
    records = encode({"repeats": repeats, "memorised_retain": memorised})
    prompts = [ids(row)[:12] for row in memorised]
    added = [record.prompt for record in records.retain[len(plain.retain) :]]
    assert added == prompts * repeats
    assert records.retain[: len(plain.retain)] == plain.retain
    for training in (records.target_training, records.reference_training):
        trained = [record.prompt for record in training]
        assert [trained.count(prompt) for prompt in prompts] == [repeats, repeats]
    assert records.evaluation == plain.evaluation


def test_texts_of_perplexities_are_cut_to_512_or_the_context(monkeypatch):
    monkeypatch.setattr(text_module, "PERPLEXITY_TOKENS", 30)
    for max_length, expected in ((64, 30), (20, 20)):
        records = encode(max_length=max_length)
        assert [r.prompt for r in records.evaluation["pile"]] == [
            ids(row)[:expected] for row in corpus().perplexity["pile"]
        ]


def test_a_text_whose_corpus_is_trained_on_is_named_so():
    assert "pile" in encode().evaluation
    records = encode({"in_domain": frozenset({"pile"})})
    assert "pile" not in records.evaluation
    assert {r.role for r in records.evaluation["pile_in_domain"]} == {"pile_in_domain"}


def test_empty_sets_are_absent():
    records = encode({"siblings": [], "perplexity": {}})
    assert set(records.evaluation) == {"forget", "retain", "unseen"}


def test_a_sequence_longer_than_the_context_is_refused():
    with pytest.raises(DataError, match="length=12 exceeds the model's context of 11 tokens"):
        encode(max_length=11)
    encode(max_length=12)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"forget": [Text(7, "g", "b")]}, "row 7 of 'forget' has 1 tokens; at least 2 are needed"),
        ({"unseen": [Text(3, "g", "b")]}, "row 3 of 'unseen' has 1 tokens"),
        ({"retain": [text(0, 1)]}, "the 1 rows of the retain corpus that serve as 'retain'"),
        ({"held_out": [text(0, 1)]}, "that serve as 'evaluated retain'"),
    ],
)
def test_what_cannot_be_encoded_is_said(changed, said):
    with pytest.raises(DataError, match=said):
        encode(changed)


def test_a_tokenizer_can_be_trained_on_the_texts():
    source = corpus()
    texts = source.texts(NO_TEMPLATE)
    assert texts == [row.text for row in [*source.forget, *source.siblings, *source.retain]]
    own = train_tokenizer(texts, 400)
    records = source.records(own, NO_TEMPLATE, 64)
    assert own.decode(records.forget[0].prompt) == own.decode(
        own(source.forget[0].text).input_ids[:12]
    )
    with pytest.raises(DataError, match="rows of the benchmark arrays have token ids only"):
        corpus(retain=[array_row(0)]).texts(NO_TEMPLATE)
    assert corpus(unseen=[array_row(0)]).texts(NO_TEMPLATE)  # not trained on


# -- GPT-2's ids ---------------------------------------------------------------------------------


def test_ids_are_used_as_they_are_or_decoded_and_read_again(monkeypatch):
    """With a tokenizer that counts as GPT-2's, here the tiny one."""
    monkeypatch.setattr(text_module, "GPT2_TOKEN_MAP", token_map_digest(TOKENIZER))
    both = replace(array_row(1, 30), text=words(20, 1))
    changed = {"forget": [array_row(0, 30), both], "siblings": [array_row(2, 30)]}
    exact = encode(changed | {"exact": True})
    assert [r.prompt for r in exact.forget] == [r.ids[:12] for r in changed["forget"]]
    assert exact.evaluation["sibling"][0].prompt == changed["siblings"][0].ids[:12]
    assert exact.evaluation["unseen"] == encode().evaluation["unseen"]  # these have no ids
    read = encode(changed)
    again = TOKENIZER(gpt2_text(array_row(0, 30).ids, TOKENIZER)).input_ids
    assert read.forget[0].prompt == tuple(again[:12])
    assert read.forget[1].prompt == ids(both)[:12]


@pytest.mark.parametrize("name", ["forget", "siblings", "retain"])
def test_ids_of_another_tokenizer_are_refused(name):
    with pytest.raises(DataError, match=r"other tokens at them; use dataset\.source=text"):
        encode({name: [array_row(0, 40)]})


def test_text_of_ids_has_the_spaces_cleaned_up():
    written = "one , two . it 's not ! is n't it ?"
    ids = tuple(TOKENIZER(written).input_ids)
    assert TOKENIZER.decode(ids) == written
    assert gpt2_text(ids, TOKENIZER) == "one, two. it's not! isn't it?"


@pytest.fixture(scope="module")
def gpt2(loku_data):
    return AutoTokenizer.from_pretrained(loku_data / "tokenizers/gpt2")


def test_tokenizers_with_gpt2s_tokens_are_told_by_their_tokens(loku_data, gpt2, tmp_path):
    assert token_map_digest(gpt2) == GPT2_TOKEN_MAP
    check_gpt2(gpt2)
    check_gpt2(AutoTokenizer.from_pretrained(loku_data / "tokenizers/phi-1_5"))
    with pytest.raises(DataError, match="token ids are GPT-2's"):
        check_gpt2(AutoTokenizer.from_pretrained(loku_data / "tokenizers/llama-2"))
    folder = shutil.copytree(loku_data / "tokenizers/gpt2", tmp_path / "swapped")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    swapped = AutoTokenizer.from_pretrained(folder)
    assert len(swapped) == len(gpt2)
    assert swapped("A").input_ids == gpt2("B").input_ids
    with pytest.raises(DataError, match="token ids are GPT-2's"):
        check_gpt2(swapped)


def arrays(loku_data):
    folder = loku_data / "tdec/lm_extraction_benchmark"
    parts = [np.load(folder / f"train_{name}.npy") for name in ("preprefix", "prefix", "suffix")]
    return np.concatenate(parts, axis=1)


def test_published_texts_are_the_rows_of_the_arrays(loku_data, gpt2):
    rows, compared = arrays(loku_data), 0
    assert rows.shape == (15000, 200)
    for file in sorted((loku_data / "tdec/forget_sets").glob("*.csv")):
        for row in (row.values for row in read_rows(file)):
            same = gpt2_text(tuple(rows[int(row["doc_id"])].tolist()), gpt2) == row["text"]
            assert same, f"{file.name}, doc {row['doc_id']}"
            compared += 1
    assert compared == 519


# -- identity ------------------------------------------------------------------------------------

CHANGES = {
    "length": 13,
    "forget": [text(0, 9), text(5, 8, 99)],
    "siblings": [],
    "retain": [text(i, 5, 100 + i) for i in range(5)],
    "held_out": [text(i, 5, 200 + i) for i in (1, 0, 2, 3, 4, 5)],
    "unseen": [text(i, 9, 301 + i) for i in range(3)],
    "memorised_retain": [text(8, 9)],
    "perplexity": {"pile": [text(0, 40, 400)]},
    "in_domain": frozenset({"pile"}),
    "repeats": 2,
    "count_padding": True,
    "evaluated": 5,
    "exact": True,
}
TRAINED = {"length", "siblings", "memorised_retain", "retain", "repeats", "exact"}


def test_every_field_is_part_of_the_identity():
    assert {field.name for field in fields(TextCorpus)} == {*CHANGES, "protocol"}
    assert corpus().digest() == corpus().digest()
    assert corpus(protocol={"length": 99}).digest() == corpus().digest()
    digests = [corpus(**{name: value}).digest() for name, value in CHANGES.items()]
    assert len({corpus().digest(), *digests}) == len(CHANGES) + 1


@pytest.mark.parametrize("changed", sorted(CHANGES))
def test_what_a_training_depends_on(changed):
    other, same = corpus(**{changed: CHANGES[changed]}), corpus()
    for role, relevant in (("target", TRAINED | {"forget"}), ("reference", TRAINED)):
        equal = other.training_digest(role) == same.training_digest(role)
        assert equal == (changed not in relevant), role
    assert same.training_digest("target") != same.training_digest("reference")


@pytest.mark.parametrize("field", ["row", "group", "text", "ids"])
def test_all_of_a_text_is_part_of_the_identity(field):
    value = {"row": 9, "group": "h", "text": "other", "ids": (1, 2)}[field]
    changed = corpus(forget=[replace(text(0, 9), **{field: value}), text(5, 8)])
    assert changed.digest() != corpus().digest()
    assert changed.training_digest("target") != corpus().training_digest("target")


def test_where_a_text_is_used_is_part_of_the_identity():
    moved = corpus(forget=[text(0, 9)], siblings=[text(5, 8), text(7, 9)])
    assert moved.digest() != corpus().digest()
    moved = corpus(siblings=[], retain=[text(7, 9), *corpus().retain])
    assert moved.training_digest("reference") != corpus().training_digest("reference")
