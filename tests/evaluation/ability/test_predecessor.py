"""The predecessor's scoring against a slow scorer, and its data rules."""

import json

import pytest

from loku_exp.errors import DataError
from loku_exp.evaluation.ability.predecessor import PREDECESSOR_TASKS, apart, predecessor_task
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm.answers import TokenScores
from tests.evaluation.ability.ability_documents import (
    GOLD,
    HUB,
    LAMBADA,
    POSITIONS,
    PUBMED,
    TOKENIZER,
    Planted,
    language_model,
    random_model,
    slow_score,
    write_hub,
    write_texts,
)


def options(name, doc):
    """Context, choices and gold of a document, written out once more."""
    if name == "piqa":
        return doc["goal"], [" " + doc["sol1"], " " + doc["sol2"]], doc["label"]
    if name == "hellaswag":
        return doc["ctx"], [" " + ending for ending in doc["endings"]], int(doc["label"])
    if name.startswith("arc"):
        gold = doc["choices"]["label"].index(doc["answerKey"])
        return doc["question"], [" " + text for text in doc["choices"]["text"]], gold
    if name == "copa":
        return doc["premise"], [" " + doc["choice1"], " " + doc["choice2"]], doc["label"]
    if name == "winogrande":
        place = doc["sentence"].index(" _")
        rest = doc["sentence"][place + 2 :]
        choices = [" " + doc["option1"] + rest, " " + doc["option2"] + rest]
        return doc["sentence"][:place], choices, {"1": 0, "2": 1}[doc["answer"]]
    answers = {
        "k61": ["7", "5", "6", "11", "none of these"],
        "k62": ["2", "4", "6", "9", "8"],
    }[doc["Problem"][:3]]
    return doc["Problem"], answers, "abcde".index(doc["correct"])


def expected_documents():
    documents = {
        name: [options(name, doc) for doc in HUB[name]]
        for name in (
            "arc_easy",
            "arc_challenge",
            "copa",
            "hellaswag",
            "mathqa",
            "piqa",
            "winogrande",
        )
    }
    del documents["arc_easy"][2]  # five choices
    del documents["arc_challenge"][1]  # three
    documents["lambada"] = [
        (" ".join(text.split(" ")[:-1]), [" " + text.split(" ")[-1]], 0) for text in LAMBADA
    ]
    documents["pubmedqa"] = [
        (f"Context: {abstract}\nQuestion: {question}\nAnswer:", [" yes", " no", " maybe"],
         ["yes", "no", "maybe"].index(answer))
        for question, abstract, answer in PUBMED
    ]  # fmt: skip
    return {f"{name}_predecessor": rows for name, rows in documents.items()}


@pytest.fixture
def tasks(tmp_path):
    write_hub(tmp_path)
    write_texts(tmp_path)
    return [
        predecessor_task(name, TOKENIZER, POSITIONS, tmp_path, tmp_path)
        for name in PREDECESSOR_TASKS
    ]


def test_scores_equal_a_slow_scorer(tasks):
    model, expected = random_model(), expected_documents()
    assert {task.task_name for task in tasks} == set(expected)
    evaluation = evaluate(language_model(model), tasks)
    chosen = set()
    for name, documents in expected.items():
        right = []
        examples = [example for example in evaluation.examples if example["set"] == name]
        for (context, choices, gold), example in zip(documents, examples, strict=True):
            scores = [
                slow_score(model, TOKENIZER(context)["input_ids"], TOKENIZER(choice)["input_ids"])
                for choice in choices
            ]
            sums = [logprob for logprob, _ in scores]
            assert example["logprobs"] == pytest.approx(sums, abs=1e-4)
            assert example["gold"] == gold
            right.append(scores[0][1] if len(scores) == 1 else sums.index(max(sums)) == gold)
            chosen.add(example["chosen"])
        assert evaluation.metrics[f"{name}_acc"] == sum(right) / len(right), name
    assert len(chosen) > 2


def test_models_that_know_or_avoid_the_answers(tasks):
    knowing, avoiding = evaluate(Planted(), tasks).metrics, evaluate(Planted(GOLD), tasks).metrics
    for name in PREDECESSOR_TASKS:
        assert knowing[f"{name}_acc"] == 1, name
        assert avoiding[f"{name}_acc"] == 0, name


def test_context_and_continuation_are_tokenised_apart_and_cut_from_the_left():
    context, continuation = "Question: k71 open", "ing a jar"
    kind, (text, sequence) = apart(TOKENIZER, POSITIONS)(context, continuation)
    both = [TOKENIZER(part)["input_ids"] for part in (context, continuation)]
    assert (kind, text) == ("token_scores", context)
    assert list(sequence.ids) == both[0] + both[1]
    assert list(sequence.labels) == [-100] * len(both[0]) + both[1]
    _, (_, cut) = apart(TOKENIZER, len(both[1]) + 2)(context, continuation)
    assert list(cut.ids) == (both[0] + both[1])[-len(both[1]) - 2 :]
    assert list(cut.labels) == [-100, -100, *both[1]]
    _, (_, longest) = apart(TOKENIZER, 4000)("word " * 700, " end")
    assert len(longest.ids) == 512
    with pytest.raises(DataError, match="cannot be scored within"):
        apart(TOKENIZER, len(both[1]))(context, continuation)
    with pytest.raises(DataError, match="both need at least one"):
        apart(TOKENIZER, POSITIONS)("", continuation)


def test_a_last_word_is_right_only_if_all_its_tokens_are_greedy(tasks):
    class Half(Planted):
        def token_scores(self, requests):
            answers = [[True, True], [True, False], [False, True]]
            return [TokenScores([-1.0, -2.0], greedy) for greedy in answers]

    task = next(task for task in tasks if task.task_name == "lambada_predecessor")
    evaluation = evaluate(Half(), [task])
    assert [example["chosen"] for example in evaluation.examples] == [0, None, None]
    assert evaluation.metrics["lambada_predecessor_acc"] == pytest.approx(1 / 3)
    assert evaluation.examples[0]["logprobs"] == [-3.0]


def test_rows_that_the_predecessor_cannot_split_are_left_out(tmp_path):
    docs = [*HUB["winogrande"], {**HUB["winogrande"][0], "sentence": "_ broke it."}]
    (tmp_path / "winogrande.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    task = predecessor_task("winogrande_predecessor", TOKENIZER, POSITIONS, tmp_path, None)
    assert len(task.eval_docs) == 3
    (tmp_path / "winogrande.jsonl").write_text(json.dumps(docs[-1]))
    with pytest.raises(DataError, match="none of 1 rows can be used"):
        predecessor_task("winogrande_predecessor", TOKENIZER, POSITIONS, tmp_path, None)


@pytest.mark.parametrize(
    ("name", "change"),
    [("piqa", {"label": 2}), ("arc_easy", {"answerKey": "E"}), ("mathqa", {"correct": "f"}),
     ("copa", {"label": "x"}), ("winogrande", {"answer": ""}), ("hellaswag", {"endings": 3})],
)  # fmt: skip
def test_malformed_rows_are_named(tmp_path, name, change):
    docs = [HUB[name][0], {**HUB[name][0], **change}]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    with pytest.raises(DataError, match=rf"{name}\.jsonl, line 2: malformed"):
        predecessor_task(f"{name}_predecessor", TOKENIZER, POSITIONS, tmp_path, None)


def test_what_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no lambada\.csv"):
        predecessor_task("lambada_predecessor", TOKENIZER, POSITIONS, tmp_path, tmp_path)
    with pytest.raises(OSError, match="baber/piqa"):
        predecessor_task("piqa_predecessor", TOKENIZER, POSITIONS, tmp_path, tmp_path)
