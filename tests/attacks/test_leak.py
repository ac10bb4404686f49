"""Leakage under sampling: what is drawn, which draw counts, and that nothing else changes."""

from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig

from loku_exp.attacks.leak import BestOfSamples, leak, problems
from loku_exp.evaluation.lm.generation import continued
from loku_exp.methods.prompt_corruption import prompt_corruption
from tests.helpers import Numbers, plain_greedy, tiny_model, tiny_records
from tests.methods import tiny

FORGET = tiny_records().evaluation["forget"]
KNOBS = {"samples": 4, "temperature": 1.0}


@pytest.fixture
def attacked(tmp_path):
    def attacked(subject=None, seed=0, **changes):
        workspace = replace(tiny.workspace(tmp_path / "run", seed=seed), tokenizer=Numbers())
        return leak(subject or tiny.target(), tiny_records(), workspace, **KNOBS | changes)

    return attacked


def answers(model, prompts, count=6):
    return continued(model, prompts, [count] * len(prompts), end_of_text=None, padding=0)


def test_the_draw_nearest_to_the_true_answer_counts():
    """True: ``3 17 4``; drawn: a third of it, all of it behind the end of the text, two thirds."""

    class Drawing(torch.nn.Module):
        config = None

        def generate(self, input_ids, attention_mask, generation_config):
            given.append(generation_config)
            drawn = torch.tensor([[9, 9, 17, 9], [9, 60, 3, 17], [3, 8, 17, 9]])
            return torch.cat([input_ids.expand(3, -1), drawn], dim=1)

    given: list[GenerationConfig] = []
    model = BestOfSamples(
        Drawing(),
        {(5, 6): ["3 17 4"]},
        {"num_return_sequences": 3, "temperature": 0.7},
        Numbers().decode,
        seed=0,
    )
    settings = GenerationConfig(max_new_tokens=4, do_sample=False, eos_token_id=60, pad_token_id=0)
    prompt = torch.tensor([[0, 5, 6]])
    found = model.generate(prompt, torch.tensor([[0, 1, 1]]), settings)
    assert found.tolist() == [[0, 5, 6, 3, 8, 17, 9]]
    (asked,) = given
    assert (asked.do_sample, asked.temperature, asked.num_return_sequences) == (True, 0.7, 3)
    assert (asked.top_k, asked.top_p, asked.max_new_tokens) == (0, 1.0, 4)
    assert not settings.do_sample


def test_near_zero_temperature_draws_are_the_greedy_answer(attacked):
    model = attacked(temperature=1e-4).load()
    for row in FORGET:
        assert answers(model, [row.prompt]) == [plain_greedy(tiny_model(), row.prompt, 6)]


def test_every_draw_of_a_wrapper_is_the_wrappers(tmp_path):
    """Near zero temperature each draw is the greedy answer of the corrupted model, not the target's."""
    knobs = {"strength": 3.0, "false_alarms": 0.01, "longest": 2}
    subject = prompt_corruption(
        tiny.target(), tiny.records(), tiny.workspace(tmp_path / "method"), **knobs
    ).subject
    row = tiny.records().forget[1]
    protected, target = subject.load(), tiny.target().load()
    (wanted,) = answers(protected, [row.prompt])
    assert wanted != answers(target, [row.prompt])[0]
    ids = torch.tensor([row.prompt])
    settings = GenerationConfig(
        max_new_tokens=6, do_sample=True, temperature=1e-4, num_return_sequences=3, pad_token_id=0
    )
    drawn = protected.generate(ids, torch.ones_like(ids), generation_config=settings)
    assert [list(each) for each in drawn[:, ids.shape[1] :].tolist()] == [list(wanted)] * 3


def test_draws_depend_on_prompt_and_seed_alone(attacked):
    prompts = [row.prompt for row in FORGET]
    model, state = attacked().load(), torch.random.get_rng_state()
    together = answers(model, prompts)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert answers(model, prompts[::-1])[::-1] == together
    assert [answers(model, [prompt])[0] for prompt in prompts] == together
    assert answers(attacked(seed=1).load(), prompts) != together


def test_other_prompts_and_all_scores_are_as_before(attacked):
    model, plain = attacked().load(), tiny_model()
    for row in tiny_records().evaluation["retain"]:
        assert answers(model, [row.prompt]) == [plain_greedy(plain, row.prompt, 6)]
    ids = torch.tensor([FORGET[0].answer.ids])
    logits = model(input_ids=ids, prompt_lengths=torch.tensor([3])).logits
    torch.testing.assert_close(logits, plain(input_ids=ids).logits)


def test_identity_follows_what_changes_the_answers(attacked):
    made = [attacked(), attacked(samples=5), attacked(temperature=0.5), attacked(seed=1)]
    made.append(attacked(replace(tiny.target(), identity="another model")))
    assert len({subject.identity for subject in made}) == 5
    assert all(subject.reads_prompts for subject in made)


def test_texts_have_no_answers_to_draw():
    assert problems(tiny_records(), "leak") == []
    (said,) = problems(tiny.records(), "leak")
    assert said.startswith("attacks=leak: it needs a forget set of questions with answers")
