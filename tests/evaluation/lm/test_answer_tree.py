"""A tree of answers gives the scores of every answer as a row of its own."""

import copy
from functools import cache

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.evaluation.lm import unlearn_lm as language
from loku_exp.evaluation.lm.answer_tree import Tree, hidden_states, obeys, plant
from tests.evaluation.lm.test_unlearn_lm import TOKENIZER, instances
from tests.evaluation.tdec.memorising import VOCABULARY, untrained
from tests.helpers import random_sequence


def question(prompt, lengths, seed=0):
    """Answers of some lengths to one question."""
    stem = random_sequence(prompt, 1, VOCABULARY, seed).ids
    answers = [random_sequence(n, 1, VOCABULARY, 100 * seed + n).ids for n in lengths]
    return [Sequence(stem + ids, (IGNORED,) * prompt + ids) for ids in answers]


QUESTIONS = [question(8 + k, range(1, 6 + k), k) for k in range(4)]
TEXTS = [text for answers in QUESTIONS for text in answers]


@cache
def model(kind):
    return untrained(kind)


def scored(model, texts, batch_tokens=200, max_length=64):
    lm = language.UnlearnLM(model, TOKENIZER, batch_tokens=batch_tokens, max_length=max_length)
    return lm.token_scores(instances("token_scores", [("", text) for text in texts]))


def plainly(model, text):
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([text.ids])).logits[0].log_softmax(-1)
    places = [t for t in range(1, len(text.ids)) if text.labels[t] != IGNORED]
    return (
        [logprobs[t - 1, text.ids[t]].item() for t in places],
        [int(logprobs[t - 1].argmax()) == text.ids[t] for t in places],
    )


@pytest.fixture
def masks(monkeypatch):
    """Whether each batch was a tree."""
    seen = []
    monkeypatch.setattr(
        language,
        "hidden_states",
        lambda model, trees, masked: seen.append(masked) or hidden_states(model, trees, masked),
    )
    return seen


@pytest.mark.parametrize("batch_tokens", [1, 200, 10_000])
@pytest.mark.parametrize("kind", ["llama", "phi", "gpt_neo"])
def test_equal_to_every_answer_alone(kind, batch_tokens, masks):
    for text, score in zip(TEXTS, scored(model(kind), TEXTS, batch_tokens), strict=True):
        logprobs, greedy = plainly(model(kind), text)
        assert score.logprobs == pytest.approx(logprobs, rel=1e-5, abs=1e-5)
        assert score.greedy == greedy
    assert set(masks) == {kind != "gpt_neo"}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_attention_of_transformers_takes_the_mask(attention):
    llama = copy.deepcopy(model("llama"))
    llama.set_attn_implementation(attention)
    assert obeys(llama, 60)
    adapted = get_peft_model(llama, LoraConfig(r=2, target_modules=["q_proj"]))
    assert obeys(adapted.eval(), 60)


def test_a_window_that_counts_columns_shows_where_columns_exceed_it():
    """The tiny GPT-Neo has a window of 6."""
    assert obeys(model("gpt_neo"), 6)
    assert not obeys(model("gpt_neo"), 12)
    flat = copy.deepcopy(model("gpt_neo"))
    for weight in flat.parameters():  # as an untrained model of the hub: nearly flat attention
        torch.nn.init.normal_(weight, std=0.02)
    assert not obeys(flat, 40)


def test_a_model_that_takes_no_such_mask_is_not_given_one(monkeypatch, masks):
    refusing = copy.deepcopy(model("llama"))
    forward = refusing.forward

    def strict(attention_mask=None, **named):
        if attention_mask is not None and attention_mask.ndim != 2:
            raise ValueError("a mask has two dimensions")
        return forward(attention_mask=attention_mask, **named)

    monkeypatch.setattr(refusing, "forward", strict)
    scores = scored(refusing, TEXTS[:5])
    assert scores[3].logprobs == pytest.approx(plainly(refusing, TEXTS[3])[0], abs=1e-5)
    assert set(masks) == {False}


def test_a_model_is_asked_once_a_width(monkeypatch):
    """Widths are those of the stem and of the answers, each without its last token."""
    widths = [8 + 10, 9 + 15, 10 + 21, 11 + 28]
    for refused, expected in ((99, [24, 31, 39]), (31, [24, 31])):
        asked = []
        monkeypatch.setattr(
            language,
            "obeys",
            lambda model, width, asked=asked, refused=refused: (
                asked.append(width) or width < refused
            ),
        )
        lm = language.UnlearnLM(model("llama"), TOKENIZER, batch_tokens=99, max_length=64)
        for k in (1, 0, 2, 3):
            assert [tree.width for tree in plant(QUESTIONS[k], 99, share=True)] == [widths[k]]
            lm.token_scores(instances("token_scores", [("", text) for text in QUESTIONS[k]]))
        assert asked == expected


def test_a_tree_by_hand():
    first = Sequence((1, 2, 3, 4, 5, 6), (IGNORED,) * 4 + (5, 6))
    second = Sequence((1, 2, 3, 4, 7, 8, 9), (IGNORED,) * 4 + (7, 8, 9))
    labelled_later = Sequence(first.ids, (IGNORED,) * 4 + (IGNORED, 6))
    (tree,) = plant([first, second, first], 99, share=True)
    assert (tree.stem, tree.branches, tree.width) == ((1, 2, 3, 4), {(5,): 4, (7, 8): 5}, 7)
    assert tree.texts == [(0, 4), (1, 5), (2, 4)]
    assert [tree.column(t, 5) for t in range(6)] == [0, 1, 2, 3, 5, 6]
    assert [t.width for t in plant([first, second], 6, share=True)] == [5, 6]
    alone = plant([first, labelled_later, second], 99, share=False)
    assert [(t.stem, t.branches, len(t.texts)) for t in alone] == [
        ((1, 2, 3, 4, 5), {(): 5}, 2),
        ((1, 2, 3, 4, 7, 8), {(): 6}, 1),
    ]


def test_columns_saved():
    texts = [text for answers in QUESTIONS for text in answers]
    together = sum(tree.width for tree in plant(texts, 99, share=True))
    apart = sum(tree.width for tree in plant(texts, 99, share=False))
    saved = sum((len(answers) - 1) * (8 + k) for k, answers in enumerate(QUESTIONS))
    assert apart - together == saved


def test_fully_labelled_texts_are_alone():
    texts = [random_sequence(9, 0, VOCABULARY, seed) for seed in range(5)]
    assert [tree.width for tree in plant(texts, 99, share=True)] == [8] * 5
    assert isinstance(plant(texts, 99, share=True)[0], Tree)
