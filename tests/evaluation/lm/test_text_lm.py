"""Texts of lm-eval's tasks become ids as everywhere here; what cannot be told apart is refused."""

import pytest
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from loku_exp.data.records import IGNORED
from loku_exp.errors import DataError
from tests.helpers import (
    TOKENIZER,
    inference_of,
    instances,
    lm_of,
    plain_greedy,
    plain_scores,
    tiny_model,
)

END, BEGIN = "<end>", "<begin>"


def merging(splits=False, begins=False, ends=False):
    """A tokenizer that knows cat and cats, and adds special tokens before and after a text if asked to."""
    pieces = [("c", "a"), ("ca", "t"), ("cat", "s"), ("Ġ", "c"), ("Ġc", "at"), ("a", "t")]
    pieces += [("Ġcat", "s")]
    words = sorted(
        {END, BEGIN, *pre_tokenizers.ByteLevel.alphabet()}, key=lambda w: (len(w) < 2, w)
    )
    words += [a + b for a, b in pieces]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, pieces))
    if splits:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if begins or ends:
        single = " ".join([BEGIN] * begins + ["$A"] + [END] * ends)
        specials = [(word, vocabulary[word]) for word in (BEGIN, END)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=specials
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN if begins else None,
        eos_token=END,
        pad_token=END,
    )


def of(tokenizer):
    return inference_of(tiny_model(vocabulary=len(tokenizer)), tokenizer)


def score(inference, *pairs):
    return lm_of(inference).loglikelihood(instances("loglikelihood", list(pairs)))


@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        ("cat", "s"),  # nothing is left to score
        ("the cat", "s"),
        ("cat", "s on"),  # something is, but not the s
        ("a c", "ats"),
        (" c", "at cat"),
        ("the cat", "s" * 30),
    ],
)
@pytest.mark.parametrize("company", [[], [("the dog", " ran"), ("the cat", " ran")]])
def test_a_continuation_that_merges_into_its_context_is_an_error(context, continuation, company):
    inference = of(merging())
    joined = inference.tok_encode(context + continuation)
    assert joined[: len(inference.tok_encode(context))] != inference.tok_encode(context)
    with pytest.raises(DataError) as caught:
        score(inference, *company, (context, continuation))
    assert repr(continuation) in str(caught.value)
    assert repr(context) in str(caught.value)
    assert "put a space or a line break between them" in str(caught.value)


@pytest.mark.parametrize("between", [" ", "\n"])
def test_the_advice_helps(between):
    inference = of(merging(splits=True))
    ((logprob, greedy),) = score(inference, ("cat" + between, "s on"))
    assert logprob < 0
    assert not greedy


def test_the_longer_context_of_a_message_is_cut():
    with pytest.raises(DataError) as caught:
        score(of(merging()), ("word " * 500 + "the cat", "s"))
    assert len(str(caught.value)) < 300


PAIRS = [("a cat", " ran"), ("cat ", "s"), ("", "cats"), ("", " cat"), (" ", "cat"), ("a\n", "b c")]


@pytest.mark.parametrize("begins", [False, True])
def test_what_does_not_merge_is_read_as_lm_eval_does(begins):
    inference = of(merging(splits=True, begins=begins))
    stock = HFLM(
        pretrained=inference.model, tokenizer=inference.tokenizer, backend="causal", max_length=64
    )
    pairs = [pair for pair in PAIRS if pair[0] != " " or begins]  # stock: an assertion
    expected = stock.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)
    for (ours, greedy), (theirs, their_greedy) in zip(
        score(inference, *pairs), expected, strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert greedy is their_greedy


def test_a_context_of_spaces_is_none():
    inference = of(merging(splits=True))
    assert score(inference, (" ", "cat")) == score(inference, ("", " cat"))


@pytest.mark.parametrize("begins", [False, True])
def test_what_a_tokenizer_adds_after_a_text_is_taken_off(begins):
    """Its EOS would be the first token after the context, and stand before the continuation's."""
    usual, ending = (merging(splits=True, begins=begins, ends=ends) for ends in (False, True))
    model = tiny_model(vocabulary=len(usual))
    lms = [lm_of(inference_of(model, tokenizer)) for tokenizer in (usual, ending)]
    assert ending("cat").input_ids[-1] == ending.eos_token_id
    prompts = [
        ("the cat", {"until": ["#"], "max_gen_toks": 5}),
        ("a", {"max_gen_toks": 5, "until": []}),
    ]
    for kind, arguments in {
        "loglikelihood": PAIRS,
        "loglikelihood_rolling": [("the cat ran to the cats",), ("a",)],
        "generate_until": prompts,
    }.items():
        one, other = (getattr(lm, kind)(instances(kind, arguments)) for lm in lms)
        assert one == other, kind
    inference = inference_of(model, ending)
    assert inference.tok_encode("a cat" + END)[-1] == ending.eos_token_id  # the text's own stays
    assert inference.tok_encode("a cat", left_truncate_len=1) == usual("a cat").input_ids[-1:]


def test_scores_and_generations_are_those_of_plain_forwards():
    inference = of(merging(splits=True, begins=True, ends=True))
    context, whole = (
        merging(splits=True, begins=True)(t).input_ids for t in ("a cat", "a cat ran")
    )
    text = inference.labelled_text("a cat", " ran")
    assert text.ids == tuple(whole)
    assert text.labels == (IGNORED,) * len(context) + tuple(whole[len(context) :])
    ((logprob, _),) = score(inference, ("a cat", " ran"))
    assert logprob == pytest.approx(sum(plain_scores(inference.model, text)[0]), abs=1e-5)
    asked = instances("generate_until", [("a cat", {"until": ["#"], "max_gen_toks": 5})])
    expected = inference.tokenizer.decode(plain_greedy(inference.model, tuple(context), 5))
    assert lm_of(inference).generate_until(asked) == [expected]


def test_a_usual_tokenizer_adds_nothing():
    assert inference_of(tiny_model(vocabulary=len(TOKENIZER)))._added == []
