"""Perplexity is the exponential of the loss per predicted token over all texts together."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.tdec.perplexity import PerplexityTask, perplexity
from tests.evaluation.tdec.extraction import knowing, language_model, records, tdec, texts


def test_by_hand():
    assert perplexity([(math.log(8), 3)]) == pytest.approx(2)
    assert perplexity([(1.0, 1), (3.0, 7)]) == pytest.approx(math.exp(4 / 8))
    assert perplexity([(0.0, 5)]) == 1


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 99)), min_size=2, max_size=9), st.data())
def test_texts_joined_or_apart_are_the_same(rows, data):
    cut = data.draw(st.integers(1, len(rows)))
    joined = (sum(loss for loss, _ in rows[:cut]), sum(tokens for _, tokens in rows[:cut]))
    assert perplexity([joined, *rows[cut:]]) == pytest.approx(perplexity(rows))


def cross_entropy(state, rows, reduction):
    model, losses = knowing(state), []
    for ids in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        losses.append(
            functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction=reduction).item()
        )
    return losses


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
@pytest.mark.parametrize("state", ["random", "memorised"])
def test_equal_to_plain_cross_entropy(state, batch_tokens):
    rows = texts()["pile"]
    evaluation = evaluate(language_model(state, batch_tokens), tdec().abilities)
    summed = sum(cross_entropy(state, rows, "sum"))
    predicted = sum(len(ids) - 1 for ids in rows)
    assert evaluation.metrics == {"pile_ppl": pytest.approx(math.exp(summed / predicted), rel=1e-6)}
    mean_of_means = math.exp(sum(cross_entropy(state, rows, "mean")) / len(rows))
    assert evaluation.metrics["pile_ppl"] != pytest.approx(mean_of_means, rel=1e-3)
    assert evaluation.counts == {"pile": 4}
    assert [row["tokens"] for row in evaluation.examples] == [len(ids) - 1 for ids in rows]
    assert [row["loss"] for row in evaluation.examples] == pytest.approx(
        cross_entropy(state, rows, "mean"), rel=1e-6
    )
    assert [row["row"] for row in evaluation.examples] == [3, 10, 17, 24]


def test_a_limit_takes_the_first_texts():
    evaluation = evaluate(language_model("random"), tdec().abilities, {"pile": 2})
    rows = texts()["pile"][:2]
    expected = math.exp(sum(cross_entropy("random", rows, "sum")) / sum(len(r) - 1 for r in rows))
    assert evaluation.metrics["pile_ppl"] == pytest.approx(expected, rel=1e-6)
    assert evaluation.counts == {"pile": 2}


def test_several_texts_keep_their_names():
    rows = records().evaluation
    tasks = [PerplexityTask("pile", rows["pile"]), PerplexityTask("wikitext", rows["unseen"])]
    evaluation = evaluate(language_model("random"), tasks)
    assert set(evaluation.metrics) == {"pile_ppl", "wikitext_ppl"}
    alone = evaluate(language_model("random"), tasks[1:])
    assert alone.metrics["wikitext_ppl"] == pytest.approx(evaluation.metrics["wikitext_ppl"])
