"""The entry point: which tasks it gives, what is missing, the means, and real files."""

import json

import pytest
import torch
from transformers import AutoTokenizer, GPTNeoConfig, GPTNeoForCausalLM

from loku_exp.errors import ConfigError, DataError
from loku_exp.evaluation.ability.build import LOCAL, Ability, ability
from loku_exp.evaluation.harness import evaluate, limits
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from tests.evaluation.ability.ability_documents import (
    FOUNDRY,
    HUB,
    POSITIONS,
    TOKENIZER,
    Planted,
    language_model,
    write_foundry,
    write_hub,
    write_texts,
)
from tests.helpers import inference_of, lm_of, never

DIALOGUES = {
    "wizard_of_wikipedia",
    "empathetic_dialogues",
    "blended_skill_talk",
    "wizard_of_internet",
}


SETS = {
    "harness": ("harness", "local", "dialogue"),
    "predecessor": ("predecessor", "dialogue"),
}


def build(variant="harness", data_dir=None, texts_dir=None, skip_missing=False):
    folders = {"data_dir": data_dir, "texts_dir": texts_dir}
    return ability(SETS[variant], TOKENIZER, POSITIONS, **folders, skip_missing=skip_missing)


def built_of(names, data_dir=None, texts_dir=None, skip_missing=False):
    folders = {"data_dir": data_dir, "texts_dir": texts_dir}
    return ability(names, TOKENIZER, POSITIONS, **folders, skip_missing=skip_missing)


def names(built):
    return {group.name: {task.task_name for task in group} for group in built.tasks}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "texts").mkdir()
    return tmp_path / "texts"


def test_harness_with_all_data(data, texts):
    built = build(data_dir=write_hub(data), texts_dir=write_texts(texts))
    assert built.missing == {}
    assert names(built) == {
        "reasoning": set(HUB),
        "reasoning_local": {"lambada_local", "pubmedqa_local"},
        "dialogue": DIALOGUES,
    }


def test_reasoning_is_the_plain_mean_over_nine(data, texts):
    built = build(data_dir=write_hub(data), texts_dir=write_texts(texts))
    metrics = evaluate(Planted(["k14", "k31", "k32", "k51", "k81", "k82"]), built.tasks).metrics
    accuracies = {
        "arc_easy": 3 / 4, "arc_challenge": 1, "copa": 0, "hellaswag": 1, "lambada_openai": 2 / 3,
        "mathqa": 1, "piqa": 1, "pubmedqa": 1 / 3, "winogrande": 1,
    }  # fmt: skip
    for name, accuracy in accuracies.items():
        assert metrics[f"{name}_acc"] == pytest.approx(accuracy), name
    assert metrics["reasoning"] == pytest.approx(
        (3 / 4 + 1 + 0 + 1 + 2 / 3 + 1 + 1 + 1 / 3 + 1) / 9
    )
    assert metrics["lambada_local_acc"] == pytest.approx(2 / 3)
    assert metrics["pubmedqa_local_acc"] == pytest.approx(1 / 3)
    assert metrics["reasoning_local"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_predecessor_with_all_data(data, texts):
    built = build("predecessor", write_hub(data), write_texts(texts))
    assert built.missing == {}
    nine = {
        f"{name}_predecessor"
        for name in ("arc_easy", "arc_challenge", "copa", "hellaswag", "lambada", "mathqa", "piqa",
                     "pubmedqa", "winogrande")
    }  # fmt: skip
    assert names(built) == {"reasoning_predecessor": nine, "dialogue": DIALOGUES}
    metrics = evaluate(Planted(["k14", "k31", "k32"]), built.tasks).metrics
    assert metrics["arc_easy_predecessor_acc"] == pytest.approx(2 / 3)  # one row has five choices
    assert metrics["reasoning_predecessor"] == pytest.approx((2 / 3 + 0 + 7) / 9)
    assert not {name for name in metrics if name.startswith("reasoning")} - {
        "reasoning_predecessor"
    }


def test_foundry_files_stand_beside_and_not_for_the_stock_tasks(data, texts):
    built = build(data_dir=write_foundry(data), texts_dir=write_texts(texts), skip_missing=True)
    assert set(built.missing) == set(HUB)
    assert (
        "arc_easy.jsonl lacks the hub's columns (question, choices, answerKey)"
        in (built.missing["arc_easy"])
    )
    assert names(built) == {
        "reasoning_local": {f"{stem}_local" for stem in FOUNDRY}
        | {"lambada_local", "pubmedqa_local"},
        "dialogue": DIALOGUES,
    }
    metrics = evaluate(Planted(["k14", "k11", "m61"]), built.tasks).metrics
    assert metrics["arc_easy_local_acc"] == 0
    assert metrics["reasoning_local"] == pytest.approx((0 + 1 / 2 + 7) / 9)
    assert "reasoning" not in metrics


@pytest.mark.parametrize("variant", ["harness", "predecessor"])
def test_one_error_names_everything_missing(variant, data):
    with pytest.raises(ConfigError) as caught:
        build(variant)
    *tasks, ways_out = caught.value.problems
    assert len(tasks) == 13
    suffix = "_predecessor" if variant == "predecessor" else ""
    hub = set(HUB) - {"lambada_openai", "pubmedqa"}
    for name in {f"{task}{suffix}" for task in hub}:
        (line,) = [line for line in tasks if f"'{name}' is missing" in line]
        assert "Couldn't reach" in line
    for name in DIALOGUES:
        assert (
            f"evaluation: '{name}' is missing: no {name}.json in evaluation.texts_dir=None" in tasks
        )
    assert all("\n" not in line for line in tasks)
    assert "evaluation.data_dir=DIR" in ways_out
    assert "evaluation.skip_missing=true" in ways_out
    if variant == "harness":
        (pubmed,) = [line for line in tasks if "'pubmedqa'" in line]
        assert "works from a local file only" in pubmed


@pytest.mark.parametrize("variant", ["harness", "predecessor"])
def test_missing_tasks_can_be_left_out_and_then_there_is_no_mean(variant, data, texts):
    write_hub(data, ["arc_easy", "copa"])
    write_texts(texts)
    (texts / "wizard_of_internet.json").unlink()
    built = build(variant, str(data), str(texts), skip_missing=True)
    assert "wizard_of_internet" in built.missing
    assert len(built.missing) == (8 if variant == "harness" else 6)
    metrics = evaluate(Planted(), built.tasks).metrics
    suffix = "_predecessor" if variant == "predecessor" else ""
    assert metrics[f"arc_easy{suffix}_acc"] == metrics[f"copa{suffix}_acc"] == 1
    assert not {"reasoning", "reasoning_predecessor", "dialogue"} & metrics.keys()
    assert "empathetic_dialogues_f1" in metrics


def test_nothing_at_all_can_be_left_out_and_is_said(caplog):
    built = build(skip_missing=True)
    assert built.tasks == []
    assert len(built.missing) == 13
    assert [name for name in built.missing if f"'{name}' is missing" not in caplog.text] == []


def test_a_folder_that_holds_none_of_it_is_a_mistake(tmp_path):
    (tmp_path / "another.txt").write_text("x")
    with pytest.raises(
        ConfigError, match=r"'local' is missing[^\n]*\nevaluation.data_dir=.*: no ability"
    ):
        built_of([LOCAL], data_dir=str(tmp_path), skip_missing=True)
    assert built_of(
        [LOCAL], texts_dir=str(tmp_path), skip_missing=True
    ).missing  # TDEC brings its own


def test_nothing_asked_is_nothing_built():
    assert built_of([]) == Ability()


def test_single_tasks_and_only_their_data(data, texts):
    write_hub(data, ["copa", "piqa"])
    write_texts(texts)
    named = ["piqa", "copa_predecessor", "lambada_local", "wizard_of_wikipedia", "piqa"]
    built = built_of(named, str(data), str(texts))
    assert names(built) == {
        "reasoning": {"piqa"},
        "reasoning_predecessor": {"copa_predecessor"},
        "reasoning_local": {"lambada_local"},
        "dialogue": {"wizard_of_wikipedia"},
    }
    metrics = evaluate(Planted(), built.tasks).metrics
    assert not {"reasoning", "reasoning_predecessor", "dialogue"} & metrics.keys()
    assert metrics["reasoning_local"] == metrics["lambada_local_acc"]
    with pytest.raises(ConfigError, match="'arc_easy' is missing"):
        built_of(["piqa", "arc_easy"], str(data))


def test_unknown_names_are_refused_with_what_there_is(data):
    write_foundry(data)
    with pytest.raises(ConfigError) as caught:
        built_of(["arc_eesy", "arc_easy_locl", "harnes"], str(data))
    for line, meant in zip(
        caught.value.problems, ["arc_easy", "arc_easy_local", "harness"], strict=True
    ):
        assert f"did you mean '{meant}'?" in line
        assert "the sets are harness, predecessor, dialogue, local" in line


def test_local_means_what_there_is_and_that_must_be_something(data):
    with pytest.raises(ConfigError, match="'local' is missing"):
        built_of(["local"], str(data))
    write_foundry(data)
    assert names(built_of(["local"], str(data))).keys() == {"reasoning_local"}


@pytest.mark.parametrize("variant", ["harness", "predecessor"])
def test_a_malformed_file_is_not_merely_missing(variant, data, texts):
    write_hub(data)
    write_texts(texts)
    good = (data / "piqa.jsonl").read_text()
    (data / "piqa.jsonl").write_text(good + '{"goal": "x"}\n')
    with pytest.raises(DataError, match=r"piqa\.jsonl, line 4: lacks sol1, sol2, label"):
        build(variant, str(data), str(texts), skip_missing=True)
    (data / "piqa.jsonl").write_text(good)
    (texts / "wizard_of_internet.json").write_text("{")
    with pytest.raises(DataError, match=r"wizard_of_internet\.json, line 1"):
        build(variant, str(data), str(texts), skip_missing=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"goal": ["x"]}, r"piqa\.jsonl, line 4: malformed \('goal' is \['x'\], but should be a valid str"),
        ({"label": "one"}, r"piqa\.jsonl, line 4: malformed \('label' is 'one', but should be a valid int"),
        ({"label": 2}, r"piqa\.jsonl, line 4: malformed \('label' is 2, but should be less than or equal"),
    ],
)  # fmt: skip
def test_rows_of_mixed_types_are_malformed(data, changed, said):
    write_hub(data)
    good = {"goal": "x", "sol1": "a", "sol2": "b", "label": 0}
    with (data / "piqa.jsonl").open("a") as file:
        file.write(json.dumps(good | changed) + "\n")
    with pytest.raises(DataError, match=said):
        build(data_dir=str(data), skip_missing=True)


def test_two_files_of_one_local_task_are_refused(data, texts):
    """The later one took the name, and the other was not asked."""
    row = {"context": "to the", "continuation": "end"}
    (data / "lambada.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="both have a file for 'lambada_local'; rename one"):
        built_of(["local"], data_dir=str(data), texts_dir=write_texts(texts))


@pytest.mark.parametrize("option", ["data_dir", "texts_dir"])
def test_a_folder_that_is_not_there_is_refused(option, tmp_path):
    with pytest.raises(ConfigError, match=rf"evaluation\.{option}=.*nowhere: no such folder"):
        build(**{option: str(tmp_path / "nowhere")}, skip_missing=True)
    for path in ("~nobody/data", "/" + "x" * 300):
        with pytest.raises(ConfigError, match=rf"evaluation\.{option}=.*: no such folder"):
            build(**{option: path}, skip_missing=True)


def test_limits_and_what_was_answered_before(data, texts, tmp_path):
    write_foundry(data)
    built = build(data_dir=write_hub(data), texts_dir=write_texts(texts))
    first = limits(built.tasks, 2)
    assert first["arc_easy"] == 2
    assert first["empathetic_dialogues"] == 1
    assert limits(built.tasks, None) == {}
    answers = Answers(tmp_path / "answers.jsonl")
    evaluation = evaluate(language_model(answers=answers), built.tasks, first)
    assert evaluation.counts["lambada_local"] == 2
    answers.close()
    again = UnlearnLM(Answers(tmp_path / "answers.jsonl"), never)
    assert evaluate(again, built.tasks, first) == evaluation


@pytest.fixture(scope="module")
def gpt2(loku_data):
    return AutoTokenizer.from_pretrained(loku_data / "tokenizers/gpt2")


@pytest.mark.parametrize("variant", ["harness", "predecessor"])
def test_real_files_load_and_evaluate(loku_data, gpt2, variant):
    built = ability(
        SETS[variant], gpt2, 2048, data_dir=str(loku_data / "benchmarks"),
        texts_dir=str(loku_data / "tdec/validation_data"), skip_missing=True,
    )  # fmt: skip
    sizes = {task.task_name: len(task.eval_docs) for group in built.tasks for task in group}
    expected = {
        "wizard_of_wikipedia": 967, "empathetic_dialogues": 2758, "blended_skill_talk": 1009,
        "wizard_of_internet": 516,
    }  # fmt: skip
    if variant == "harness":
        expected |= {
            "arc_easy_local": 2376, "arc_challenge_local": 1172, "copa_local": 100,
            "lambada_openai_local": 5153, "math_qa_local": 2983, "piqa_local": 1838,
            "pubmed_qa_labeled_local": 1000, "winogrande_local": 1267, "lambada_local": 4992,
            "pubmedqa_local": 500,
        }  # fmt: skip
    else:
        expected |= {"lambada_predecessor": 4992, "pubmedqa_predecessor": 500}
    assert sizes == expected
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=len(gpt2), hidden_size=16, num_layers=2, num_heads=2, window_size=256,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=2048,
        bos_token_id=gpt2.eos_token_id, eos_token_id=gpt2.eos_token_id,
    )  # fmt: skip
    gpt2.pad_token = gpt2.eos_token
    options = {"batch_tokens": 4096, "max_length": 2048, "stop_at_eos": True}
    lm = lm_of(inference_of(GPTNeoForCausalLM(config), gpt2, **options))
    evaluation = evaluate(lm, built.tasks, limits(built.tasks, 2))
    assert evaluation.counts == dict.fromkeys(expected, 2)
    for name in expected:
        metric = f"{name}_f1" if name in DIALOGUES else f"{name}_acc"
        assert 0 <= evaluation.metrics[metric] <= 1
    assert 0 <= evaluation.metrics["dialogue"] <= 1
    for name in DIALOGUES:  # an untrained model is close to uniform
        assert evaluation.metrics[f"{name}_loss"] == pytest.approx(10.82, abs=0.5)
    assert ("reasoning_local" in evaluation.metrics) == (variant == "harness")
