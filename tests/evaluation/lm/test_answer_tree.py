"""A tree of answers gives the scores of every answer as a row of its own."""

import copy
from functools import cache

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.evaluation.lm import answer_tree
from loku_exp.evaluation.lm import inference as asking
from loku_exp.evaluation.lm.answer_tree import Tree, hidden_states, obeys, plant
from tests.evaluation.tdec.memorising import VOCABULARY, untrained
from tests.helpers import inference_of, instances, lm_of, plain_scores, random_sequence


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


def scored(model, texts, batch_tokens=200):
    lm = lm_of(inference_of(model, batch_tokens=batch_tokens))
    return lm.token_scores(instances("token_scores", [("", text) for text in texts]))


@pytest.fixture
def masks(monkeypatch):
    """Whether each batch was a tree."""
    seen = []
    monkeypatch.setattr(
        asking,
        "hidden_states",
        lambda model, trees, masked: seen.append(masked) or hidden_states(model, trees, masked),
    )
    return seen


@pytest.mark.parametrize("batch_tokens", [1, 200, 10_000])
@pytest.mark.parametrize("kind", ["llama", "phi", "gpt_neo"])
def test_equal_to_every_answer_alone(kind, batch_tokens, masks):
    for text, score in zip(TEXTS, scored(model(kind), TEXTS, batch_tokens), strict=True):
        logprobs, greedy = plain_scores(model(kind), text)
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
    assert scores[3].logprobs == pytest.approx(plain_scores(refusing, TEXTS[3])[0], abs=1e-5)
    assert set(masks) == {False}


@pytest.mark.parametrize("refused", [99, 64])
def test_a_model_is_asked_once_a_power_of_two(monkeypatch, masks, refused):
    """Widths are those of the stem and of the answers, each without its last token."""
    widths, asked = [8 + 10, 9 + 15, 10 + 21, 11 + 28], []
    monkeypatch.setattr(
        asking, "obeys", lambda model, width: asked.append(width) or width < refused
    )
    inference = inference_of(model("llama"), batch_tokens=99)
    for k in (1, 0, 2, 3):
        assert [tree.width for tree in plant(QUESTIONS[k], 99, share=True)] == [widths[k]]
        masks.clear()
        lm_of(inference).token_scores(instances("token_scores", [("", t) for t in QUESTIONS[k]]))
        assert set(masks) == {k < 3 or refused > 64}
    assert asked == [32, 64]


def test_how_a_text_is_read_does_not_depend_on_what_else_is_asked(masks):
    """The tiny GPT-Neo reads trees of up to its window of 6 columns, in whatever company they come."""
    narrow = question(4, [1, 2], seed=5)
    assert [tree.width for tree in plant(narrow, 99, share=True)] == [5]
    alone = scored(model("gpt_neo"), narrow)
    assert set(masks) == {False}  # asked of the next power of two, 8
    masks.clear()
    together = scored(model("gpt_neo"), [*narrow, *TEXTS])
    assert [together[k].logprobs for k in (0, 1)] == [alone[k].logprobs for k in (0, 1)]
    masks.clear()
    wide = scored(model("llama"), [*QUESTIONS[0], TEXTS[-1]])
    assert masks == [True, False]  # what shares nothing has no mask
    assert wide[0] == scored(model("llama"), QUESTIONS[0])[0]


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


def test_memory_that_ran_out_is_no_answer(monkeypatch):
    """It was taken for a model that reads no trees, and everything behind it was done the slow way."""

    def full(model, trees, masked):
        if masked:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden_states(model, trees, masked)

    monkeypatch.setattr(answer_tree, "hidden_states", full)
    with pytest.raises(torch.OutOfMemoryError):
        obeys(model("llama"), 16)


def test_a_model_that_gives_no_numbers_under_a_mask_does_not_obey(monkeypatch):
    """NaN is not larger than any noise: it was taken for equal, and the evaluation ended in it."""

    def spoiled(model, trees, masked):
        return hidden_states(model, trees, masked) * (float("nan") if masked else 1.0)

    assert obeys(model("llama"), 16)
    monkeypatch.setattr(answer_tree, "hidden_states", spoiled)
    assert not obeys(model("llama"), 16)
