"""Facts given back in the prompt: which, where they stand, and that nothing else is changed by them."""

from dataclasses import replace

import pytest
import torch

from loku_exp.attacks.context import PrefixedPrompts, context, contexts_of, problems
from loku_exp.data.records import IGNORED, Sequence
from loku_exp.evaluation.lm.generation import continued
from loku_exp.methods.wrapper import Wrapper
from tests.helpers import (
    inference_of,
    instances,
    plain_greedy,
    plain_scores,
    tiny_model,
    tiny_records,
)
from tests.methods import tiny
from tests.models.architectures import build

RECORDS = tiny_records()
FORGET = RECORDS.evaluation["forget"]  # two rows of each of three authors


def attacked(arm="same_author", rows=1, subject=None):
    return context(subject or tiny.target(), RECORDS, None, arm=arm, rows=rows)


def joined(*rows):
    return tuple(token for row in rows for token in row.answer.ids)


def test_each_arm_by_hand():
    given, same = (contexts_of(RECORDS, arm, 1) for arm in ("given", "same_author"))
    assert given[FORGET[3].prompt] == FORGET[3].alternatives["paraphrase"][0].ids
    assert same[FORGET[3].prompt] == FORGET[2].answer.ids
    assert same[FORGET[2].prompt] == FORGET[3].answer.ids
    other = contexts_of(RECORDS, "other_author", 2)
    assert other[FORGET[0].prompt] == joined(FORGET[2], FORGET[3])
    assert other[FORGET[5].prompt] == joined(FORGET[1], FORGET[0])
    assert not same.keys() & {row.prompt for row in RECORDS.evaluation["retain"]}


def test_texts_are_scored_as_if_the_facts_stood_before_them():
    model, contexts = attacked().load(), contexts_of(RECORDS, "same_author", 1)
    texts = [row.answer for row in FORGET]
    texts += [row.alternatives["wrong"][0] for row in FORGET]  # each its own prompt
    asked = instances("token_scores", [("", text) for text in texts])
    inference = inference_of(model, reads_prompts=True)
    found = {i: s for batch in inference.batches("token_scores", asked) for i, s in batch.items()}
    for index, text in enumerate(texts):
        before = contexts[text.ids[:3]]
        whole = Sequence(before + text.ids, (IGNORED,) * len(before) + text.labels)
        logprobs, greedy = plain_scores(tiny_model(), whole)
        assert found[index].logprobs == pytest.approx(logprobs, abs=1e-5)
        assert found[index].greedy == greedy


def test_generations_go_on_behind_the_facts_and_end_with_the_context():
    model, contexts = attacked().load(), contexts_of(RECORDS, "same_author", 1)
    prompts = [row.prompt for row in FORGET]
    found = continued(model, prompts, [5] * 6, end_of_text=None, padding=0)
    for prompt, new in zip(prompts, found, strict=True):
        assert new == plain_greedy(tiny_model(), contexts[prompt] + prompt, 5)
    (long,) = continued(model, prompts[:1], [61], end_of_text=None, padding=0)
    assert len(long) == 64 - len(contexts[prompts[0]]) - 3


def test_a_model_that_names_no_context_length_goes_on_behind_the_facts_too():
    """It ended after the unlearning, and asked for model.context_length, which was set."""
    bloom = replace(tiny.target(), load=lambda dtype=None: build("bloom"))
    contexts, prompt = contexts_of(RECORDS, "same_author", 1), FORGET[0].prompt
    (found,) = continued(attacked(subject=bloom).load(), [prompt], [5], end_of_text=None, padding=0)
    assert found == plain_greedy(build("bloom"), contexts[prompt] + prompt, 5)


def test_other_prompts_are_asked_as_before():
    row, model, plain = RECORDS.evaluation["retain"][0], attacked().load(), tiny_model()
    ids = torch.tensor([row.answer.ids])
    logits = model(input_ids=ids, prompt_lengths=torch.tensor([3])).logits
    torch.testing.assert_close(logits, plain(input_ids=ids).logits)
    found = continued(model, [row.prompt], [5], end_of_text=None, padding=0)
    assert found == [plain_greedy(plain, row.prompt, 5)]


def test_a_wrapper_inside_is_told_where_the_longer_prompt_ends():
    told = []

    class Told(Wrapper):
        def forward(self, prompt_lengths=None, **given):
            told.append(prompt_lengths.tolist())
            return self.wrapped(**given)

    model = PrefixedPrompts(Told(tiny_model()), {(5, 6): (7, 8, 9)}, reads_prompts=True)
    model(input_ids=torch.tensor([[5, 6, 1]]), prompt_lengths=torch.tensor([2]))
    assert told == [[5]]


def test_identity_follows_the_facts():
    made = [attacked("given"), attacked(), attacked("other_author"), attacked("other_author", 2)]
    made.append(attacked(subject=replace(tiny.target(), identity="another model")))
    assert len({subject.identity for subject in made}) == 5
    assert all(subject.reads_prompts for subject in made)


def test_what_does_not_fit_is_said():
    def said(records=RECORDS, max_length=64, arm="same_author", rows=1):
        return problems(records, max_length, "mine", arm, rows)

    assert said() == said(arm="given") == said(arm="other_author", rows=2) == []
    assert "attacks=mine: it needs a forget set of questions" in said(tiny.records())[0]
    assert "attacks.mine.rows=2: given is one fact" in said(arm="given", rows=2)[0]
    assert "attacks.mine.rows=2: an author of the forget set has 1 rows" in said(rows=2)[0]
    assert "attacks.mine.rows=3: an author" in said(arm="other_author", rows=3)[0]
    assert "the model's context has 16; set fewer rows" in said(max_length=16)[0]
    one = replace(RECORDS, evaluation={"forget": FORGET[:2]})
    assert "the forget set is of one author" in said(one, arm="other_author")[0]
    bare = [replace(row, alternatives={}) for row in FORGET]
    no_paraphrase = replace(RECORDS, evaluation={"forget": bare})
    assert (
        "gives a paraphrase, and not every forget row has one"
        in said(no_paraphrase, arm="given")[0]
    )
