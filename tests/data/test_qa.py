"""Encoding of question-answer rows: labels by the official convention."""

from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from loku_exp.config.compose import compose_config
from loku_exp.data.qa import QA, QACorpus, encode
from loku_exp.data.records import IGNORED
from loku_exp.data.refusals import REFUSALS, refusal_to
from loku_exp.data.tofu import load_tofu
from loku_exp.errors import DataError
from loku_exp.evaluation.tofu.published_log import read_log
from loku_exp.runtime.settings import Template

LOGS = [
    ("forget01", "retain99"),
    ("forget05", "retain95"),
    ("forget10", "retain90"),
    ("forget10", "full"),
]


def words(text: str) -> list[int]:
    """A tokenizer for tests: one id per word, the same in every test."""
    return [len(word) for word in text.split()]


class Words:
    """`words` as a tokenizer."""

    eos_token_id = 99

    def __call__(self, text, **_):
        ids = words(text)
        return {"input_ids": ids, "special_tokens_mask": [0] * len(ids)}


TEMPLATE = Template(question_start="Question: ", question_end="\n", answer_tag="Answer: ")


def row(answer: str = "It is red") -> QA:
    return QA(7, "author 1", "Which color?", answer, "Red it is", ("It is blue", "It is green"))


def test_encode_labels_what_follows_the_prompt_and_one_eos():
    record = encode(row(), "forget", words, 99, TEMPLATE, 50)
    # Question: Which color? | Answer: It is red <eos>
    assert record.prompt == (9, 5, 6)
    assert record.answer.ids == (9, 5, 6, 7, 2, 2, 3, 99)
    assert record.answer.labels == (IGNORED,) * 3 + (7, 2, 2, 3, 99)
    assert record.answer.num_labels == 5
    assert [text.num_labels for text in record.alternatives["wrong"]] == [5, 5]
    assert record.row == 7
    assert record.question == "Question: Which color?\n"


def test_encode_counts_a_merged_boundary_token_as_prompt():
    def merging(text: str) -> list[int]:  # ']"' is one token, as in Llama-2
        return [ord(c) for c in text.replace(']"', "#")]

    template = Template(question_start="[", question_end="]", answer_tag="")
    record = encode(QA(0, "", "q", '"x"'), "forget", merging, 0, template, 50)
    # alone the prompt has 3 tokens, [ q ]; in the text the third is the merged one
    assert record.answer.ids == (ord("["), ord("q"), ord("#"), ord("x"), ord('"'), 0)
    assert record.answer.labels[:3] == (IGNORED,) * 3
    assert record.answer.num_labels == 3


def test_encode_answer_longer_than_the_context_raises():
    with pytest.raises(DataError, match=r"row 7 of 'forget' has 8 tokens .* context has 6"):
        encode(row(), "forget", words, 99, TEMPLATE, 6)


class Joining(Words):
    """A tokenizer whose blank at the end of a text is a token, and before a word is one with it."""

    def __call__(self, text, **_):
        ids = words(text) + [1] * text.endswith(" ")
        return {"input_ids": ids, "special_tokens_mask": [0] * len(ids)}


def test_an_answer_that_a_prompt_swallows_is_refused_and_a_swallowed_word_said(caplog):
    blank = Template(question_start="Question: ", question_end="\nAnswer: ", answer_tag="")
    sound = Template(question_start="Question: ", question_end="\nAnswer:", answer_tag=" ")

    def encoded(answer, template):
        rows = [QA(0, "a", "Red?", answer), QA(1, "a", "Blue?", "It is blue")]
        corpus = QACorpus(rows, [], rows, [], {}, {})
        return corpus.records(Joining(), template, 50).target_training

    with pytest.raises(
        DataError, match=r"row 0 of 'forget': no token of its answer 'Yes' .*answer_tag"
    ):
        encoded("Yes", blank)
    assert [row.answer.num_labels for row in encoded("Yes", sound)] == [2, 4]
    assert caplog.text == ""
    assert [row.answer.num_labels for row in encoded("It is", blank)] == [2, 3]
    assert "neither trained nor scored in 2 of 2 rows" in caplog.text


def test_forget_rows_have_a_refusal_as_a_paired_batch():
    """Each row the same one every time, as the answer to its own question, rows not all the same."""
    rows = [replace(row(), row=i) for i in range(30)]
    corpus = QACorpus(rows, [], rows, rows, {"forget": rows}, protocol={})
    records = corpus.records(Words(), TEMPLATE, 50)
    assert "idk" in records.batch_names()
    texts, paired = records.batches(("idk", "forget"))
    assert paired == {"idk"}
    for forget, refusal, of in zip(texts["forget"], texts["idk"], rows, strict=True):
        assert refusal.ids[:4] == forget.ids[:4]
        said = words(refusal_to(of.row, of.question))
        assert refusal.labels == (IGNORED,) * 3 + (7, *said, 99)
    assert len(set(texts["idk"])) > 10
    assert all(
        "idk" not in r.alternatives for r in [*records.retain, *records.evaluation["forget"]]
    )


def test_a_reference_may_have_rows_that_the_target_has_not():
    rows, of_reference = [row()], [row(), row("Other words")]
    corpus = QACorpus(rows, of_reference, rows, rows, {}, protocol={})
    records = corpus.records(Words(), TEMPLATE, 50)
    assert len(records.target_training) == 1
    assert [row.answer.num_labels for row in records.reference_training] == [5, 4]


def test_refusals_are_different_sentences():
    assert len(set(REFUSALS)) == len(REFUSALS) >= 20
    assert {refusal_to(i, "Which color?") for i in range(500)} == set(REFUSALS)


def test_every_set_is_part_of_the_digest():
    """Also the forget and retain sets, beside the evaluation sets of the same names."""

    def corpus(**sets):
        other = {
            name: [row(name)]
            for name in ("target_training", "reference_training", "forget", "retain")
        }
        evaluation = {"forget": [row("evaluated")], "retain": []} | sets.pop("evaluation", {})
        return QACorpus(**{**other, **sets}, evaluation=evaluation, protocol={})

    changed = [row("another")]
    digests = [corpus().digest(), corpus(evaluation={"facts": []}).digest()]
    for name in ("target_training", "reference_training", "forget", "retain"):
        digests += [corpus(**{name: changed}).digest(), corpus(**{name: []}).digest()]
    for name in ("forget", "retain"):
        digests.append(corpus(evaluation={name: changed}).digest())
    assert len(set(digests)) == len(digests)
    assert corpus().digest() == corpus().digest()


@pytest.mark.slow
@pytest.mark.parametrize(("forget_split", "log_of"), LOGS)
def test_label_counts_equal_the_published_phi_logs(loku_data, forget_split, log_of):
    """Every answer, paraphrase and wrong answer of four published logs, 2,800 counts a set."""
    tokenizer = AutoTokenizer.from_pretrained(loku_data / "tokenizers/phi-1_5")
    template = compose_config(["model=phi"]).model.template
    corpus = load_tofu(path=str(loku_data / "tofu"), forget_split=forget_split)
    records = corpus.records(tokenizer, template, 2048)
    name = f"ft_epoch5_lr2e-05_phi_{log_of}_wd0.01.eval_log_aggregated.json"
    log = read_log(loku_data / "tofu_eval_logs" / name)
    for part, rows in log.items():
        for published, record in zip(rows, records.evaluation[part], strict=False):
            texts = [
                record.answer,
                *record.alternatives["paraphrase"],
                *record.alternatives["wrong"],
            ]
            assert published.tokens == tuple(text.num_labels for text in texts)
            assert published.prompt == record.question


def test_llama_merges_the_bracket_with_an_opening_quote(loku_data):
    tokenizer = AutoTokenizer.from_pretrained(loku_data / "tokenizers/llama-2")
    template = compose_config(["model=llama2"]).model.template
    corpus = load_tofu(path=str(loku_data / "tofu"), forget_split="forget10")
    records = corpus.records(tokenizer, template, 4096)

    def merged(rows, texts):
        return sum(r.prompt != t.ids[: len(r.prompt)] for r in rows for t in texts(r))

    assert merged(records.target_training, lambda r: [r.answer]) == 144
    everything = records.evaluation["forget"]
    assert (
        merged(
            everything,
            lambda r: [r.answer, *r.alternatives["paraphrase"], *r.alternatives["wrong"]],
        )
        == 57
    )
    assert records.target_training[0].prompt[0] == tokenizer.bos_token_id
    assert records.target_training[0].answer.ids[-1] == tokenizer.eos_token_id
