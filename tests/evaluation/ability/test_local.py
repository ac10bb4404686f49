"""Own-named tasks on other local files: prompts and scores against a slow scorer."""

import json

import pytest

from loku_exp.errors import DataError
from loku_exp.evaluation.ability.local import foundry_tasks, text_tasks
from loku_exp.evaluation.harness import evaluate, limits
from tests.evaluation.ability.ability_documents import (
    FOUNDRY,
    GOLD,
    LAMBADA,
    PUBMED,
    TOKENIZER,
    Planted,
    language_model,
    random_model,
    slow_score,
    write_foundry,
    write_hub,
    write_texts,
)

WORDS = ("yes", "no", "maybe")


def question_line(query):
    return query.strip() + "\nAnswer:"


def expected_pairs():
    """(pairs of context and continuation, gold) of every document, written out once more."""
    choices = {
        "arc_easy": question_line,
        "piqa": question_line,
        "copa": lambda query: query,
        "math_qa": lambda query: query[:-1],
    }
    pairs = {
        f"{stem}_local": [
            ([(prompt(doc["query"]), " " + text) for text in doc["choices"]], doc["gold"])
            for doc in FOUNDRY[stem]
        ]
        for stem, prompt in choices.items()
    }
    pairs["lambada_openai_local"] = [
        ([(doc["context"], " " + doc["continuation"])], 0) for doc in FOUNDRY["lambada_openai"]
    ]
    pairs["pubmed_qa_labeled_local"] = [
        ([(doc["context"][:-1], " " + word) for word in WORDS], WORDS.index(doc["continuation"]))
        for doc in FOUNDRY["pubmed_qa_labeled"]
    ]
    pairs["winogrande_local"] = [
        ([(context, " " + doc["continuation"]) for context in doc["context_options"]], doc["gold"])
        for doc in FOUNDRY["winogrande"]
    ]
    pairs["lambada_local"] = [
        ([(" ".join(text.split(" ")[:-1]), " " + text.split(" ")[-1])], 0) for text in LAMBADA
    ]
    pairs["pubmedqa_local"] = [
        ([(f"Context: {abstract}\nQuestion: {question}\nAnswer:", " " + word) for word in WORDS],
         WORDS.index(answer))
        for question, abstract, answer in PUBMED
    ]  # fmt: skip
    return pairs


@pytest.fixture
def tasks(tmp_path):
    write_foundry(tmp_path)
    write_texts(tmp_path)
    return [*foundry_tasks(tmp_path), *text_tasks(tmp_path)]


def test_tasks_and_scores_equal_a_slow_scorer(tasks):
    model, expected = random_model(), expected_pairs()
    assert {task.task_name for task in tasks} == set(expected)
    evaluation = evaluate(language_model(model), tasks)
    for name, documents in expected.items():
        right = []
        examples = [example for example in evaluation.examples if example["set"] == name]
        for (pairs, gold), example in zip(documents, examples, strict=True):
            scores = []
            for context, continuation in pairs:
                head = TOKENIZER(context)["input_ids"]
                scores.append(
                    slow_score(
                        model, head, TOKENIZER(context + continuation)["input_ids"][len(head) :]
                    )
                )
            sums = [logprob for logprob, _ in scores]
            assert example["logprobs"] == pytest.approx(sums, abs=1e-4)
            assert example["gold"] == gold
            right.append(scores[0][1] if len(scores) == 1 else sums.index(max(sums)) == gold)
        assert evaluation.metrics[f"{name}_acc"] == sum(right) / len(right), name
        assert evaluation.counts[name] == len(documents)


def test_models_that_know_or_avoid_the_answers(tasks):
    knowing, avoiding = evaluate(Planted(), tasks).metrics, evaluate(Planted(GOLD), tasks).metrics
    assert {name: knowing[f"{name}_acc"] for name in expected_pairs()} == dict.fromkeys(
        expected_pairs(), 1.0
    )
    assert {name: avoiding[f"{name}_acc"] for name in expected_pairs()} == dict.fromkeys(
        expected_pairs(), 0.0
    )


def test_of_equal_scores_the_first_is_chosen_and_sums_are_not_normalised(tmp_path):
    doc = {"query": "k71", "choices": ["turn", "turn the lid", "turn"], "gold": 0}
    (tmp_path / "own.jsonl").write_text(json.dumps(doc))

    class Sums(Planted):
        def loglikelihood(self, requests):  # 1 nat a word: the short ones win, and tie
            return [(-1.0 * len(request.args[1].split()), False) for request in requests]

    evaluation = evaluate(Sums(), foundry_tasks(tmp_path))
    assert evaluation.examples[0]["chosen"] == 0
    assert evaluation.examples[0]["acc"] == 1.0
    assert evaluation.metrics["own_local_acc"] == 1


def test_words_that_look_like_missing_values_stay_words(tmp_path):
    (tmp_path / "lambada.csv").write_text(
        'id,text\n0,she asked for None\n1,"one\r, two NA"\n2,NA is nan\n'
    )
    (task,) = text_tasks(tmp_path)
    pairs = [tuple(question.options[0]) for question in task.questions.values()]
    assert pairs == [("she asked for", " None"), ("one\r, two", " NA"), ("NA is", " nan")]
    (tmp_path / "lambada.csv").write_text("text\na NA\nNA\n")
    with pytest.raises(DataError, match="row 2: the text must be two words"):
        text_tasks(tmp_path)


def test_limit(tasks):
    counts = evaluate(Planted(), tasks, limits(tasks, 1)).counts
    assert counts == dict.fromkeys(expected_pairs(), 1)


def test_files_of_the_hubs_schema_are_left_alone(tmp_path):
    write_hub(tmp_path)
    assert foundry_tasks(tmp_path) == []
    assert text_tasks(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"query": "q", "choices": ["a", "b"], "gold": 2}', "gold is 2; it must be a number from 0 to 1"),
        ('{"query": "q", "choices": ["a", "b"], "gold": "1"}', "gold is '1'"),
        ('{"query": "q", "choices": ["a", "b"], "gold": true}', "gold is True"),
        ('{"query": "q", "choices": ["a"], "gold": 0}', "'choices' is ['a']; it must be a list of 2 texts"),
        ('{"query": "q", "choices": "ab", "gold": 0}', "'choices' is 'ab'; it must be a list of 2 texts"),
        ('{"query": "q", "choices": ["a", 7], "gold": 0}', "'choices', item 2, is 7; it must be a text"),
        ('{"query": "q", "choices": ["a", " "], "gold": 0}', "'choices', item 2, is empty"),
        ('{"query": 7, "choices": ["a", "b"], "gold": 0}', "'query' is 7; it must be a text"),
        ('{"query": "q", "gold": 0}', "lacks choices"),
        ("{", "not JSON"),
    ],
)  # fmt: skip
def test_malformed_lines_are_named(tmp_path, line, said):
    good = json.dumps(FOUNDRY["copa"][0])
    (tmp_path / "copa.jsonl").write_text(f"{good}\n{good}\n{line}\n{good}\n")
    with pytest.raises(DataError) as caught:
        foundry_tasks(tmp_path)
    assert f"copa.jsonl, line 3: {said}" in str(caught.value)


def test_malformed_answers_and_texts_are_named(tmp_path):
    (tmp_path / "pubmed_qa_labeled.jsonl").write_text('{"context": "c", "continuation": "Yes"}\n')
    with pytest.raises(DataError, match="line 1: the answer is 'Yes'; it must be yes, no, maybe"):
        foundry_tasks(tmp_path)
    (tmp_path / "lambada.csv").write_text("id,text\n0,two words\n1,one\n")
    with pytest.raises(DataError, match=r"lambada\.csv, row 2: the text must be two words or more"):
        text_tasks(tmp_path)
    (tmp_path / "lambada.csv").write_text("id,words\n0,two words\n")
    with pytest.raises(DataError, match=r"lambada\.csv, row 1: lacks text"):
        text_tasks(tmp_path)


@pytest.mark.parametrize("changed", [{"context": 5}, {"continuation": None}, {"context": "\u200b"}])
def test_a_cloze_is_made_of_texts(tmp_path, changed):
    good = {"context": "a", "continuation": "b"}
    (tmp_path / "own.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(good | changed)}")
    with pytest.raises(DataError, match=r"own\.jsonl, line 2: "):
        foundry_tasks(tmp_path)


def test_a_last_word_of_digits_stays_as_it_is_written(tmp_path):
    (tmp_path / "lambada.csv").write_bytes(b"\xef\xbb\xbftext\r\nagent 007\r\n1 2.50\r\n")
    (task,) = text_tasks(tmp_path)
    pairs = [tuple(question.options[0]) for question in task.questions.values()]
    assert pairs == [("agent", " 007"), ("1", " 2.50")]
