"""Dialogues: normalisation, prompts and F1 by hand; loss and generation against a loop."""

import json
import math

import pytest
import torch

from loku_exp.errors import ConfigError, DataError
from loku_exp.evaluation.ability.dialogue import (
    DIALOGUES,
    Dialogue,
    DialogueTask,
    dialogue_group,
    dialogue_task,
    normalize_reply,
    prompt_of,
    read_dialogues,
    unigram_f1,
)
from loku_exp.evaluation.harness import evaluate, limits
from tests.evaluation.ability import ability_documents
from tests.evaluation.ability.ability_documents import (
    POSITIONS,
    TOKENIZER,
    Planted,
    language_model,
    random_model,
    slow_score,
    write_texts,
)


@pytest.mark.parametrize(
    ("said", "normalised"),
    [
        ("", ""),
        ("hello", "Hello."),
        ("HELLO THERE", "Hello there."),
        ("hello , how are you ?", "Hello, how are you?"),
        ("i think so. do you? yes", "I think so. Do you? Yes."),
        ("do you?yes", "Do you?yes."),  # no space, no new sentence
        ("well i'm sure i'd go", "Well I'm sure I'd go."),
        ("i like Paris and ice", "I like paris and ice."),
        ("wait... what?!", "Wait... What?!"),
        ("a  b", "A b."),
        ("a" + " " * 40 + "b", "A B."),  # what remains of a wide gap begins a sentence
        ("he said 'hi' to me", "He said'hi'to me."),
        ("(really)", "(really)"),
        ('so he said "no"', 'So he said "no"'),
        ("one,two . three", "One,two. Three."),
        ("  spaced out  ", "spaced out."),  # the first word is the empty one before the space
        (". start", ". Start."),
        ("it costs 3.5", "It costs 3.5."),
    ],
)
def test_replies_are_normalised_as_in_parlai(said, normalised):
    assert normalize_reply(said) == normalised


def test_prompts():
    assert prompt_of(["Hi."]) == "User 1: Hi.\nUser 2:"
    assert prompt_of(["Hi.", "Yes?"]) == "User 1: Hi.\nUser 2: Yes?\nUser 1:"
    assert prompt_of(["A.", "B.", "C."]) == "User 1: A.\nUser 2: B.\nUser 1: C.\nUser 2:"


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ("The cat sat.", "a cat, sat!", 1),
        ("cat", "dog", 0),
        ("", "dog", 0),
        ("", "", 0),
        ("the", "a", 0),  # nothing is left
        ("I like green tea", "I like tea", 2 * (3 / 4) * (3 / 3) / (3 / 4 + 3 / 3)),
        ("go go go", "go now", 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),
        ("go go", "go go now", 2 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3)),
        ("don't", "dont", 1),
        ("another", "other", 0),  # "an" in "another" is no article
    ],
)
def test_f1_by_hand(prediction, reference, f1):
    assert unigram_f1(prediction, reference) == pytest.approx(f1)


@pytest.fixture
def tasks(tmp_path):
    folder = write_texts(tmp_path)
    assert folder
    return [dialogue_task(name, tmp_path, TOKENIZER, POSITIONS) for name in DIALOGUES]


def test_files_become_prompts_and_replies(tmp_path):
    write_texts(tmp_path)
    assert read_dialogues(tmp_path / "wizard_of_wikipedia.json") == [
        Dialogue(0, "User 1: I like tea.\nUser 2: Me too! Which one?\nUser 1:", "Green tea."),
        Dialogue(1, "User 1: Hi.\nUser 2:", "Hello k."),
    ]
    (only,) = read_dialogues(tmp_path / "empathetic_dialogues.json")
    assert only == Dialogue(0, "User 1: My dog is ill.\nUser 2:", "Oh no, I'm sorry.")


def greedy(model, ids, count):
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


def test_metrics_equal_a_loop(tasks):
    model = random_model()
    evaluation = evaluate(language_model(model, stop_at_eos=False), [dialogue_group(tasks)])
    means = []
    for task in tasks:
        losses, scores = [], []
        examples = [row for row in evaluation.examples if row["set"] == task.task_name]
        texts = [(one.prompt, one.reply) for one in task.dialogues.values()]
        assert len(texts) == len(ability_documents.DIALOGUES[task.task_name])
        for (prompt, reply), example in zip(texts, examples, strict=True):
            context, target = TOKENIZER(prompt)["input_ids"], TOKENIZER(reply)["input_ids"]
            losses.append(-slow_score(model, context, target)[0] / len(target))
            generated = TOKENIZER.decode(greedy(model, context, 32), skip_special_tokens=True)
            assert example["generation"] == generated.split("\nUser ")[0]
            scores.append(unigram_f1(generated.split("\nUser ")[0], reply))
        name = task.task_name
        assert evaluation.metrics[f"{name}_loss"] == pytest.approx(
            sum(losses) / len(losses), abs=1e-4
        )
        assert evaluation.metrics[f"{name}_f1"] == pytest.approx(sum(scores) / len(scores))
        means.append(sum(scores) / len(scores))
        assert evaluation.counts[name] == len(losses)
    assert evaluation.metrics["dialogue"] == pytest.approx(sum(means) / 4)


class Speaker(Planted):
    """Says the same to everybody."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def generate_ids(self, requests):
        return [TOKENIZER(self.text)["input_ids"] for _ in requests]


def test_generations_end_where_the_next_speaker_begins(tasks):
    evaluation = evaluate(Speaker("Green tea.\nUser 2: And more of it"), tasks)
    first = evaluation.examples[0]
    assert first["set"] == "wizard_of_wikipedia"
    assert first["generation"] == "Green tea."
    assert first["f1"] == 1
    assert evaluation.metrics["wizard_of_wikipedia_f1"] == 0.5  # the other one says hello
    assert evaluation.metrics["wizard_of_wikipedia_loss"] == 1
    unchanged = evaluate(Speaker("Green tea. User 2: more"), tasks).examples[0]
    assert unchanged["generation"] == "Green tea. User 2: more"


def test_the_group_needs_all_four(tasks):
    assert "dialogue" in evaluate(Speaker("yes"), [dialogue_group(tasks)]).metrics
    three = evaluate(Speaker("yes"), [dialogue_group(tasks[:3])]).metrics
    assert "dialogue" not in three
    assert "wizard_of_wikipedia_f1" in three


def test_limit(tasks):
    group = dialogue_group(tasks)
    assert limits([group], 1) == dict.fromkeys(DIALOGUES, 1)
    assert evaluate(Speaker("yes"), [group], limits([group], 1)).counts == dict.fromkeys(
        DIALOGUES, 1
    )


def requests_of(prompt, reply, max_length):
    task = DialogueTask("wizard_of_wikipedia", [Dialogue(0, prompt, reply)], TOKENIZER, max_length)
    (_, (_, scored)), (_, (_, kept, total)) = task.requests(0)
    return scored, kept, total


@pytest.mark.parametrize(
    ("max_length", "prompt_room", "score_room"), [(60, 28, 60), (2048, 512, 512)]
)
def test_long_prompts_lose_their_beginning(max_length, prompt_room, score_room):
    prompt, reply = "User 1: " + "many words. " * 600 + "\nUser 2:", "Yes."
    ids, target = TOKENIZER(prompt)["input_ids"], TOKENIZER(reply)["input_ids"]
    assert len(ids) > 600
    scored, kept, total = requests_of(prompt, reply, max_length)
    assert list(kept) == ids[-prompt_room:]
    assert total == prompt_room + 32 <= max_length
    assert list(scored.ids) == (ids + target)[-score_room:]
    assert [label for label in scored.labels if label != -100] == target


def test_short_prompts_are_whole():
    scored, kept, total = requests_of("User 1: Hi.\nUser 2:", "Yes.", 2048)
    ids, target = TOKENIZER("User 1: Hi.\nUser 2:")["input_ids"], TOKENIZER("Yes.")["input_ids"]
    assert list(kept) == ids
    assert total == len(ids) + 32
    assert list(scored.ids) == ids + target
    assert scored.num_labels == len(target)


def test_replies_that_do_not_fit_are_cut_to_half_the_room():
    reply = "many words " * 60
    scored, _, _ = requests_of("User 1: Hi.\nUser 2:", reply, 50)
    assert [label for label in scored.labels if label != -100] == TOKENIZER(reply)["input_ids"][:25]


def test_a_context_without_room_for_a_reply_is_refused(tmp_path):
    write_texts(tmp_path)
    with pytest.raises(ConfigError, match="replies of 32 tokens do not fit a context of 32"):
        dialogue_task("wizard_of_wikipedia", tmp_path, TOKENIZER, 32)
    dialogue_task("wizard_of_wikipedia", tmp_path, TOKENIZER, 33)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text":\n {"0": ["a"', "line 2: not JSON"),
        ("[]", "not {"),
        ('{"texts": {}}', "not {"),
        ('{"text": {}}', "at least one"),
        ('{"text": [["a", "b"]]}', "must be an object of dialogues"),
        ('{"text": {"7": ["a", "b"], "8": ["a"]}}', "dialogue 8: must be a list of two texts"),
        ('{"text": {"7": ["a", 1]}}', "dialogue 7: must be a list of two texts"),
        ('{"text": {"7": "ab"}}', "dialogue 7: must be a list of two texts"),
        ('{"text": {"7": ["a", " \u200b"]}}', "dialogue 7: the last turn, the reply, is empty"),
        ('{"text": {"7": ["a", "b"], "7": ["a", "c"]}}', "the key '7' is there twice"),
        ('{"text": {"7": ["a", "\\ud83d"]}}', "holds \\ud83d, half of a surrogate pair"),
        ("version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    ],
)
def test_malformed_files_are_named(tmp_path, content, said):
    (tmp_path / "wizard_of_wikipedia.json").write_text(content)
    with pytest.raises(DataError) as caught:
        dialogue_task("wizard_of_wikipedia", tmp_path, TOKENIZER, POSITIONS)
    assert "wizard_of_wikipedia.json" in str(caught.value)
    assert said in str(caught.value)


def test_a_byte_order_mark_is_read(tmp_path):
    file = tmp_path / "wizard_of_wikipedia.json"
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text('{"text": {"7": ["hi", "é\u2028è"]}}', encoding=encoding)
        assert read_dialogues(file)[0].reply == "É\u2028è."
    file.write_bytes('{"text": {"7": ["hi", "é"]}}'.encode("latin-1"))
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        read_dialogues(file)


def test_a_model_that_repeats_the_reply_has_f1_one(tasks):
    class Parrot(Planted):
        def generate_ids(self, requests):
            replies = {one.prompt: one.reply for task in tasks for one in task.dialogues.values()}
            return [TOKENIZER(replies[request.args[0]])["input_ids"] for request in requests]

    metrics = evaluate(Parrot(), [dialogue_group(tasks)]).metrics
    assert metrics["dialogue"] == 1
    assert math.isclose(metrics["empathetic_dialogues_f1"], 1)
    assert json.dumps(metrics)
