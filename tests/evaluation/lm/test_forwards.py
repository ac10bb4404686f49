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
from loku_exp.evaluation.lm import unlearn_lm as language
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.tdec import suite as tdec
from loku_exp.evaluation.tofu import suite as tofu
from loku_exp.runtime.cache import Cache
from loku_exp.stages.inputs import load_materials
from tests.evaluation.lm.test_unlearn_lm import TOKENIZER
from tests.evaluation.tdec.memorising import random_text, untrained

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

    def watch(lm):
        counts, kind = Counter(), ["read"]
        forward, generate = lm.model.forward, lm.model.generate

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

        monkeypatch.setattr(lm.model, "forward", counting)
        monkeypatch.setattr(lm.model, "generate", during("prompt", generate))
        monkeypatch.setattr(language, "obeys", during("question", answer_tree.obeys))
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
    materials = load_materials(config, Cache(str(tmp_path)))
    model = shaped(config, len(materials.tokenizer))
    lm = UnlearnLM(
        model, materials.tokenizer, batch_tokens=4096, max_length=materials.max_length
    )  # fmt: skip
    counts = forwarded(lm)
    evaluate(lm, [*materials.suite.tasks(None), *materials.abilities])
    assert {text: n for text, n in counts.items() if n > 1} == {}
    assert len(counts) > 20


def tdec_suite(unseen, perplexity):
    def records(rows, role):
        return [Example(k, "", role, row, _labelled(row)) for k, row in enumerate(rows)]

    sets = {
        "forget": records([random_text(24, seed) for seed in range(5)], "forget"),
        "unseen": records(unseen, "unseen"),
        "pile": records(perplexity, "pile"),
    }
    knobs = {"n": [3], "end_of_text": "continue", "ability": "none"}
    all_records = Records([], [], sets["forget"], [], sets)
    return tdec.suite(all_records, TOKENIZER, 64, **knobs)


def _labelled(ids):
    return Sequence(ids, ids)


def test_texts_of_a_perplexity_that_were_read_for_extraction_are_not_read_again(forwarded):
    unseen = [random_text(24, seed) for seed in range(20, 24)]
    suite = tdec_suite(unseen, [*unseen[:3], random_text(30, 50)])
    lm = language_model("gpt_neo", 500)
    counts = forwarded(lm)
    found = evaluate(lm, [*suite.tasks(None), *suite.abilities])
    assert max(counts.values()) == 1
    alone = evaluate(language_model("gpt_neo", 500), suite.abilities)
    assert found.metrics["pile_ppl"] == pytest.approx(alone.metrics["pile_ppl"], rel=1e-5)


# -- invariances ---------------------------------------------------------------------------------


def language_model(kind, batch_tokens):
    return UnlearnLM(
        untrained(kind), TOKENIZER, batch_tokens=batch_tokens, max_length=64, stop_at_eos=False
    )


class Numbers:
    """A tokenizer whose tokens are numbers."""

    eos_token_id = 0

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(map(str, ids))


def tofu_suite():
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
    return tofu.suite(records, Numbers(), rows="all", truth_ratio="geometric", max_tokens=20)


def both_suites():
    extraction = tdec_suite(
        [random_text(24, seed) for seed in range(20, 23)], [random_text(30, 50)]
    )
    extraction.records.evaluation["unseen"] += extraction.records.evaluation.pop("forget")
    return [*tofu_suite().tasks(None), *extraction.tasks(None), *extraction.abilities]


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
