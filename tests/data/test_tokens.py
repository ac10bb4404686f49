"""A tokenizer that adds special tokens after a text gives the ids and labels of one that does not."""

import pytest
from tokenizers.processors import TemplateProcessing

from loku_exp.data.qa import QA, QACorpus
from loku_exp.data.records import IGNORED
from loku_exp.data.text import Text, TextCorpus
from loku_exp.data.tokens import plain_ids
from loku_exp.models.tokenizer import END_OF_TEXT, plain_tokenizer, train_tokenizer
from loku_exp.runtime.settings import Template

TEMPLATE = Template(question_start="Q: ", question_end="\nA:", answer_tag=" ")
TEXTS = ["a question", " and its answer", f"it ends in {END_OF_TEXT}", "?"]


def tokenizer(single: str):
    """One that puts special tokens around a text, e.g. ``<s> $A </s>``."""
    made = train_tokenizer(["a question and its answer"], 300)
    made.add_special_tokens({"additional_special_tokens": ["<s>", "</s>"]})
    names = [END_OF_TEXT, "<s>", "</s>"]
    special = [(name, made.convert_tokens_to_ids(name)) for name in names]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=special
    )
    return made


BEFORE = {"": [], "<s> ": ["<s>"], "<|endoftext|> ": [END_OF_TEXT], "<s> <s> ": ["<s>", "<s>"]}
AFTER = ["", " </s>", " <|endoftext|>", " </s> <|endoftext|>"]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("after", AFTER)
def test_what_comes_after_a_text_is_taken_off_and_what_comes_before_stays(before, after):
    around = tokenizer(f"{before}$A{after}")
    first = around.convert_tokens_to_ids(BEFORE[before])
    for text in TEXTS:
        own = around(text, add_special_tokens=False).input_ids
        assert plain_ids(around, text) == first + own
    assert plain_ids(around, "") == first


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("after", AFTER)
def test_a_plain_tokenizer_gives_the_plain_ids_by_itself(before, after):
    around = tokenizer(f"{before}$A{after}")
    plain = plain_tokenizer(around)
    assert (plain is around) == (after == "")
    for text in [*TEXTS, ""]:
        assert plain(text).input_ids == plain.encode(text) == plain_ids(around, text)
        own = around(text, add_special_tokens=False).input_ids
        assert plain(text, add_special_tokens=False).input_ids == own
    assert plain(TEXTS).input_ids == [plain_ids(around, text) for text in TEXTS]
    assert around("a").input_ids == tokenizer(f"{before}$A{after}")("a").input_ids  # left as it was


def test_real_tokenizers_are_what_they_were(loku_data):
    from transformers import AutoTokenizer

    for name in ("gpt2", "phi-1_5", "llama-2"):
        real = AutoTokenizer.from_pretrained(loku_data / "tokenizers" / name)
        for text in [*TEXTS, "What is 17, and why?\n", "“Ünïcode” [/INST]", ""]:
            assert plain_ids(real, text) == real(text).input_ids
    with_end = AutoTokenizer.from_pretrained(loku_data / "tokenizers/llama-2", add_eos_token=True)
    assert with_end("why?").input_ids[-1] == with_end.eos_token_id
    assert plain_ids(with_end, "why?")[-1] != with_end.eos_token_id
    assert plain_tokenizer(with_end)("why?").input_ids == plain_ids(with_end, "why?")


ROWS = [
    QA(0, "author", "who?", "somebody", "some person", ("nobody", "you")),
    QA(1, "b", "why?", "so"),
]


def qa(made):
    corpus = QACorpus(ROWS, ROWS, ROWS, ROWS, {"forget": ROWS}, {})
    return corpus.records(made, TEMPLATE, 200)


@pytest.mark.parametrize("before", ["", "<s> "])
@pytest.mark.parametrize("after", AFTER[1:])
def test_questions_and_answers_are_encoded_alike(before, after):
    plain, around = tokenizer(f"{before}$A"), tokenizer(f"{before}$A{after}")
    expected = qa(plain)
    assert qa(around) == expected
    eos = plain.eos_token_id
    for example in expected.forget:
        assert example.prompt[-1] not in plain.convert_tokens_to_ids(["</s>", END_OF_TEXT])
        assert example.answer.ids.count(eos) == 1
        assert example.answer.ids[-1] == eos
        labels = example.answer.labels
        assert labels[: len(example.prompt)] == (IGNORED,) * len(example.prompt)
        assert IGNORED not in labels[len(example.prompt) :]


@pytest.mark.parametrize("after", AFTER[1:])
def test_texts_are_encoded_alike(after):
    rows = [Text(k, "", f"a question and its answer number {k}") for k in range(4)]
    corpus = TextCorpus(
        16, rows[:1], rows[1:2], rows[2:], rows[2:], rows[3:], {}, perplexity={"p": rows}
    )
    plain, around = tokenizer("$A"), tokenizer(f"$A{after}")
    assert corpus.records(around, TEMPLATE, 64) == corpus.records(plain, TEMPLATE, 64)


def test_prompts_of_the_abilities_do_not_end_in_special_tokens():
    from loku_exp.evaluation.ability.predecessor import apart

    plain, around = tokenizer("<s> $A"), tokenizer("<s> $A </s>")
    asked = [apart(one, 64)("a question", " and its answer") for one in (plain, around)]
    assert asked[0] == asked[1]
