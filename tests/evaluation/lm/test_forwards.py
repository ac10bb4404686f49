"""What an evaluation forwards: no text twice, and the same results however rows are put together.

Forwarded twice means the same tokens in the same kind of call: read with teacher forcing (for scores or
for what follows every prefix), or as the prompt of a generation. Steps of decoding continue what was read;
random tokens that ask a model whether it reads trees are no text.
"""

from collections import Counter

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from loku_exp.config.compose import compose_config
from loku_exp.data.records import Example, Records, Sequence
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm import answer_tree
from loku_exp.evaluation.lm import inference as asking
from loku_exp.evaluation.tdec.suite import tdec_suite
from loku_exp.evaluation.tofu.suite import tofu_suite
from loku_exp.runtime.cache import Cache
from loku_exp.stages.inputs import load_inputs
from tests.evaluation.tdec.memorising import random_text, untrained
from tests.helpers import TOKENIZER, Numbers, inference_of, lm_of

SETS = (("forget", 0, 5), ("retain", 10, 5), ("authors", 20, 3), ("facts", 30, 3))


def texts_of_call(ids, mask):
    """The texts of one forward: unpadded rows, or the paths of trees."""
    rows = []
    if mask.ndim == 2:
        return [tuple(row[seen.bool()].tolist()) for row, seen in zip(ids, mask, strict=True)]
    for row, seen in zip(ids, mask[:, 0] == 0, strict=True):
        for column in range(len(row)):
            last = not seen[column + 1 :, column].any()
            if last and (seen[column, : column + 1].any() and row[seen[column]].any()):
                rows.append(tuple(row[seen[column]].tolist()))
    return rows


@pytest.fixture
def forwarded(monkeypatch):
    """Counts texts by kind of call."""

    def watch(model):
        counts, kind = Counter(), ["read"]
        forward, generate = model.forward, model.generate

        def counting(*args, **named):
            past = named.get("past_key_values")
            if kind[0] != "question" and (past is None or not past.get_seq_length()):
                for text in texts_of_call(named["input_ids"], named["attention_mask"]):
                    # scoring leaves the last token of a text out, reading does not
                    cut = text[:-1] if past is not None and kind[0] == "read" else text
                    counts[kind[0], cut] += 1
            return forward(*args, **named)

        def during(name, function):
            def named_call(*args, **named):
                kind[0] = name
                try:
                    return function(*args, **named)
                finally:
                    kind[0] = "read"

            return named_call

        monkeypatch.setattr(model, "forward", counting)
        monkeypatch.setattr(model, "generate", during("prompt", generate))
        monkeypatch.setattr(asking, "obeys", during("question", answer_tree.obeys))
        return counts

    return watch


def shaped(config, vocabulary):
    fields = dict(config.model.architecture) | {"vocab_size": vocabulary}
    torch.manual_seed(0)
    kind = fields.pop("model_type")
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).eval()


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=toy_tofu", "evaluation.max_tokens=40"],
        [
            "dataset=toy_tdec",
            "dataset.num_forget=3",
            "dataset.num_siblings=3",
            "dataset.num_unseen=4",
        ],
    ],
    ids=["toy_tofu", "toy_tdec"],
)
def test_no_text_is_forwarded_twice(overrides, forwarded, tmp_path):
    config = compose_config(["model=toy_neo", *overrides])
    inputs = load_inputs(config, Cache(str(tmp_path)))
    model = shaped(config, len(inputs.tokenizer))
    counts = forwarded(model)
    options = {"batch_tokens": 4096, "max_length": inputs.max_length, "stop_at_eos": True}
    lm = lm_of(inference_of(model, inputs.tokenizer, **options))
    evaluate(lm, [*inputs.suite.tasks(None, "full"), *inputs.abilities])
    assert {text: n for text, n in counts.items() if n > 1} == {}
    assert len(counts) > 20


def extraction_sets(unseen, perplexity):
    def examples(rows, role):
        return [Example(k, "", role, row, _labelled(row)) for k, row in enumerate(rows)]

    return {
        "forget": examples([random_text(24, seed) for seed in range(5)], "forget"),
        "unseen": examples(unseen, "unseen"),
        "pile": examples(perplexity, "pile"),
    }


def extraction(sets):
    knobs = {"n": [3], "end_of_text": "continue"}
    return tdec_suite(Records([], [], sets["forget"], [], sets), TOKENIZER, **knobs)


def _labelled(ids):
    return Sequence(ids, ids)


def test_texts_of_a_perplexity_that_were_read_for_extraction_are_not_read_again(forwarded):
    unseen = [random_text(24, seed) for seed in range(20, 24)]
    suite = extraction(extraction_sets(unseen, [*unseen[:3], random_text(30, 50)]))
    model = untrained("gpt_neo")
    counts = forwarded(model)
    found = evaluate(
        lm_of(inference_of(model, batch_tokens=500)), [*suite.tasks(None, "full"), *suite.abilities]
    )
    assert max(counts.values()) == 1
    alone = evaluate(language_model("gpt_neo", 500), suite.abilities)
    assert found.metrics["pile_ppl"] == pytest.approx(alone.metrics["pile_ppl"], rel=1e-5)


# -- invariances ---------------------------------------------------------------------------------


def language_model(kind, batch_tokens):
    return lm_of(inference_of(untrained(kind), batch_tokens=batch_tokens))


def questions():
    def record(row, role, wrong):
        prompt = random_text(5 + row % 4, row)
        texts = [prompt + random_text(3 + (row + k) % 6, 100 * row + k) for k in range(wrong + 2)]
        labelled = [Sequence(t, (-100,) * len(prompt) + t[len(prompt) :]) for t in texts]
        others = {"paraphrase": (labelled[1],), "wrong": tuple(labelled[2:])}
        return Example(row, "", role, prompt, labelled[0], others, f"q{row}", f"{row} 7 9")

    sets = {
        name: [record(first + row, name, wrong) for row in range(4)] for name, first, wrong in SETS
    }
    records = Records([], [], sets["forget"], sets["retain"], sets)
    return tofu_suite(records, Numbers(), rows="all", truth_ratio="geometric", max_tokens=20)


def both_suites():
    sets = extraction_sets([random_text(24, seed) for seed in range(20, 23)], [random_text(30, 50)])
    suite = extraction(sets | {"unseen": sets["unseen"] + sets["forget"]})
    tasks = [task for task in suite.tasks(None, "full") if task.task_name != "forget"]
    return [*questions().tasks(None, "full"), *tasks, *suite.abilities]


@pytest.mark.parametrize("kind", ["gpt_neo", "llama"])
def test_metrics_depend_on_neither_batch_size_nor_padding_side(kind, monkeypatch):
    found = {}
    for rows, side in ((1, "right"), (7, "left"), (32, "right"), (32, "left")):
        monkeypatch.setattr(TOKENIZER, "padding_side", side)
        found[rows, side] = evaluate(language_model(kind, rows * 30), both_suites())
    expected = found.pop((1, "right"))
    assert len(expected.metrics) >= 20
    for evaluation in found.values():
        assert evaluation.metrics == pytest.approx(expected.metrics, rel=1e-5, abs=1e-6)
        for one, two in zip(expected.examples, evaluation.examples, strict=True):
            assert one.get("generation") == two.get("generation")
