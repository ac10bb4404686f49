"""TDEC's metrics through lm-eval equal means over decoding every prefix of every text."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from loku_exp.errors import ConfigError
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm import wavefront
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from tests.evaluation.tdec.extraction import (
    LENGTH,
    SIZES,
    SUFFIX,
    knowing,
    language_model,
    records,
    suite_of,
    tdec,
    texts,
)
from tests.evaluation.tdec.memorising import (
    END,
    decode_all,
    ended,
    likelihood,
    random_text,
)
from tests.helpers import TOKENIZER, never


def by_brute_force(state, name, end=None):
    """All values of each text of a set."""
    model, values = knowing(state), []
    for ids in texts()[name]:
        said = decode_all(model, ids)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))
        right = [said[t][0] == ids[t] for t in range(1, len(ids))]
        value = {"ma": fmean(right), "loss": loss.item()}
        if end is not None:
            said = {t: ended(tokens, end) for t, tokens in said.items()}
        value |= {f"el{n}": likelihood(ids, said, n) for n in SIZES if len(ids) > n}
        if len(ids) == LENGTH:
            last = decode_all(model, ids[-2 * SUFFIX :])[SUFFIX]
            value["exact6"] = float(last == ids[-SUFFIX:])
            value["exact18"] = float(decode_all(model, ids)[LENGTH - SUFFIX] == ids[-SUFFIX:])
        values.append(value)
    return values


def means(values):
    names = {name for value in values for name in value}
    return {name: fmean(value[name] for value in values if name in value) for name in names}


def of_set(evaluation, name):
    start = f"{name}_"
    return {k.removeprefix(start): v for k, v in evaluation.metrics.items() if k.startswith(start)}


@pytest.mark.parametrize("end_of_text", ["continue", "stop"])
@pytest.mark.parametrize("state", ["random", "memorised"])
def test_metrics_equal_means_over_brute_force(state, end_of_text, monkeypatch):
    monkeypatch.setattr(wavefront, "CPU_CACHE_BYTES", 20_000)
    built = tdec(end_of_text=end_of_text)
    evaluation = evaluate(language_model(state), built.tasks(None, "full"))
    end = END if end_of_text == "stop" else None
    for name in ("forget", "sibling", "retain", "unseen"):
        values = by_brute_force(state, name, end)
        expected = means(values)
        assert of_set(evaluation, name) == pytest.approx(expected, abs=1e-9), name
        assert evaluation.counts[name] == len(values)
        rows = [row for row in evaluation.examples if row["set"] == name]
        assert [row["row"] for row in rows] == [7 * i + 3 for i in range(len(values))]
        for row, value, ids in zip(rows, values, texts()[name], strict=True):
            assert {key: row[key] for key in value} == pytest.approx(value, abs=1e-9)
            assert not {"exact6", "exact18", "el10"} - set(value) & set(row)
            assert (row["tokens"], row["group"]) == (len(ids), f"group {row['row'] % 2}")
    assert set(evaluation.counts) == {"forget", "sibling", "retain", "unseen"}
    assert built.protocol["el_n"] == SIZES
    assert built.protocol["end_of_text"] == end_of_text


def test_the_models_differ_in_what_is_tested():
    """Or the test above could not tell the metrics apart."""
    known = by_brute_force("memorised", "forget")
    assert [value.get("exact18") for value in known] == [1, 1, 0, 0, None]
    assert [value.get("exact6") for value in known] == [1, 0, 0, 0, None]
    assert means(known)["el3"] < means(known)["ma"]
    going_on, stopping = (by_brute_force("memorised", "retain", end) for end in (None, END))
    assert means(going_on)["el3"] == 1
    assert means(stopping)["el3"] < 1
    assert max(value["ma"] for value in by_brute_force("random", "forget")) < 0.3


def test_rows_shorter_than_the_full_length_have_no_exact_extraction():
    evaluation = evaluate(language_model("memorised"), tdec().tasks(None, "full"))
    assert {"exact6", "exact18"} <= set(of_set(evaluation, "forget"))
    assert not {"exact6", "exact18"} & set(of_set(evaluation, "sibling"))
    short = [row for row in evaluation.examples if row["tokens"] < LENGTH]
    assert len(short) == 1 + 2 + 1
    assert not any(key.startswith("exact") for row in short for key in row)
    assert sum("el10" not in row for row in evaluation.examples) == 1


def test_the_full_length_does_not_depend_on_the_forget_set():
    """Even where all of it is short, there is exact extraction from the other sets."""
    shorter = {"forget": [random_text(20, 100)]}
    whole = evaluate(language_model("memorised"), tdec(**shorter).tasks(None, "full"))
    assert {"retain_exact6", "retain_exact18", "unseen_exact6"} <= set(whole.metrics)
    assert not any(name.startswith("forget_exact") for name in whole.metrics)


def of_names(suite, *names):
    tasks = [*suite.tasks(None, "full"), *suite.abilities]
    return [task for task in tasks if task.task_name in names]


def test_what_was_answered_of_unseen_text_serves_every_forget_set():
    answers = Answers()
    evaluate(language_model("random", answers=answers), of_names(tdec(), "unseen", "pile"))
    asked = UnlearnLM(answers, never)
    for changed in ("forget", "sibling", "retain"):
        other = tdec(**{changed: [random_text(20, 999)]})
        evaluate(asked, of_names(other, "unseen", "pile"))
    for changed in ("unseen", "pile"):
        other = tdec(**{changed: [random_text(LENGTH, 999)]})
        with pytest.raises(AssertionError, match="the model was asked"):
            evaluate(asked, of_names(other, changed))


def test_the_reduced_suite_decodes_nothing(monkeypatch):
    whole = evaluate(language_model("random"), tdec().tasks(None, "full"))

    def never(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(wavefront, "_decode", never)
    with pytest.raises(AssertionError, match="decoded"):
        evaluate(language_model("random"), tdec().tasks(None, "full"))
    reduced = evaluate(language_model("random"), tdec().tasks(None, "reduced"))
    kept = {name: value for name, value in whole.metrics.items() if "_el" not in name}
    assert reduced.metrics == pytest.approx(kept)
    assert reduced.counts == whole.counts
    assert not any("generation" in row for row in reduced.examples)


def test_a_brief_suite_reads_forget_and_retain_set_alone():
    """It read siblings and unseen text too."""
    reduced, brief = (
        evaluate(language_model("random"), tdec().tasks(None, depth))
        for depth in ("reduced", "brief")
    )
    assert brief.counts.keys() == {"forget", "retain"}
    kept = {k: v for k, v in reduced.metrics.items() if k.split("_")[0] in brief.counts}
    assert brief.metrics == pytest.approx(kept)


def test_examples_show_the_last_quarter():
    evaluation = evaluate(language_model("memorised"), tdec().tasks(None, "full"))
    rows = [row for row in evaluation.examples if row["set"] == "forget"]
    for row, ids in zip(rows, texts()["forget"], strict=True):
        cut = len(ids) - SUFFIX
        said = decode_all(knowing("memorised"), ids)[cut]
        assert row["prompt"] == TOKENIZER.decode(ids[cut - SUFFIX : cut])
        assert row["answer"] == TOKENIZER.decode(ids[cut:])
        assert row["generation"] == TOKENIZER.decode(said)
    assert rows[0]["generation"] == rows[0]["answer"]
    assert rows[2]["generation"] != rows[2]["answer"]


def test_a_text_shorter_than_two_quarters_of_the_longest_shows_its_beginning():
    """Its prompt was empty."""
    evaluation = evaluate(language_model("memorised"), tdec().tasks(None, "full"))
    ids = texts()["unseen"][2]
    assert SUFFIX < len(ids) < 2 * SUFFIX
    row = [row for row in evaluation.examples if row["set"] == "unseen"][2]
    assert row["prompt"] == TOKENIZER.decode(ids[: len(ids) - SUFFIX])


def test_one_epoch_before_a_stop_the_forget_set_is_asked_in_full():
    whole = evaluate(language_model("random"), tdec().tasks(None, "full"))
    found = evaluate(language_model("random"), tdec().tasks(None, "before_stop"))
    kept = {n: v for n, v in whole.metrics.items() if "_el" not in n or n.startswith("forget")}
    assert found.metrics == pytest.approx(kept)
    assert {row["set"] for row in found.examples if "generation" in row} == {"forget"}


@pytest.mark.parametrize(("batch_tokens", "cache_bytes"), [(1, 10**9), (10_000, 13_000)])
def test_metrics_do_not_depend_on_batches_and_chunks(batch_tokens, cache_bytes, monkeypatch):
    expected = evaluate(language_model("random"), tdec().tasks(None, "full"))
    monkeypatch.setattr(wavefront, "CPU_CACHE_BYTES", cache_bytes)
    actual = evaluate(language_model("random", batch_tokens), tdec().tasks(None, "full"))
    assert actual.metrics == pytest.approx(expected.metrics, abs=1e-9)


def test_answers_serve_other_scoring_and_what_is_new_is_decoded(tmp_path):
    tasks = [*tdec().tasks(None, "full"), *tdec().abilities]
    answers = Answers(tmp_path / "answers.jsonl")
    first = evaluate(language_model("random", answers=answers), tasks)
    answers.close()
    asked = UnlearnLM(Answers(tmp_path / "answers.jsonl"), never)
    again = evaluate(asked, tasks)
    assert again.metrics == first.metrics
    assert again.examples == first.examples
    stopped = evaluate(asked, tdec(end_of_text="stop").tasks(None, "full"))
    assert set(stopped.metrics) < set(first.metrics)
    with pytest.raises(AssertionError, match="the model was asked"):
        evaluate(asked, tdec(n=[2]).tasks(None, "full"))


def test_the_smallest_ngram_is_asked_for_whatever_the_order():
    expected = evaluate(language_model("random"), tdec([1, 3, 10]).tasks(None, "full"))
    actual = evaluate(language_model("random"), tdec([10, 1, 3]).tasks(None, "full"))
    assert actual.metrics == expected.metrics
    one = evaluate(language_model("random"), tdec([10]).tasks(None, "full"))
    assert one.metrics["forget_el10"] == pytest.approx(expected.metrics["forget_el10"])
    assert "forget_el3" not in one.metrics


def test_counted_padding_is_scored():
    ids = texts()["forget"][4]
    filled = ids + (END,) * (LENGTH - len(ids))
    evaluation = evaluate(language_model("random"), tdec(forget=[filled]).tasks(None, "full"))
    said = decode_all(knowing("random"), filled)
    assert evaluation.metrics["forget_el1"] == pytest.approx(likelihood(filled, said, 1), abs=1e-9)
    assert "forget_exact6" in evaluation.metrics


def test_a_text_to_forget_without_a_single_ngram_is_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.n=20: the shortest text .* has 20 tokens"):
        tdec(n=[1, 20])
    assert tdec(n=[1, 19]).protocol["el_n"] == [1, 19]


def test_a_missing_set_is_left_out():
    built = records()
    built = replace(built, evaluation={k: v for k, v in built.evaluation.items() if k != "sibling"})
    tasks = suite_of(built, [3]).tasks(None, "full")
    assert [task.config.task for task in tasks] == ["forget", "retain", "unseen"]


def test_of_texts_shorter_than_four_tokens_the_last_one_is_extracted():
    """A quarter of three tokens was none, and `exact0` said of the whole text whether it was extracted."""
    short = {name: [(5, 6, 7), (8, 9, 10)] for name in texts()}
    suite = tdec([1], **short)
    found = evaluate(language_model("untrained"), of_names(suite, "forget"))
    exact = {name for name in found.metrics if name.startswith("forget_exact")}
    assert exact == {"forget_exact1", "forget_exact2"} <= {m.name for m in suite.catalogue}
