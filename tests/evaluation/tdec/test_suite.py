"""TDEC's metrics through lm-eval equal means over decoding every prefix of every text."""

import copy
from dataclasses import replace
from functools import cache
from statistics import fmean

import pytest
import torch
from loku_exp.evaluation.lm.responses import Replay, Responses

from loku_exp.data.records import Example, Records, Sequence
from loku_exp.errors import ConfigError
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm import wavefront
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.tdec.suite import suite
from loku_exp.models.tokenizer import train_tokenizer
from tests.evaluation.tdec.memorising import (
    END,
    POSITIONS,
    decode_all,
    ended,
    likelihood,
    memorise,
    random_text,
    untrained,
)

TOKENIZER = train_tokenizer(["a b c"], 300)
LENGTH, SUFFIX = 24, 6
SIZES = [1, 3, 10]


def record(row, role, ids):
    return Example(row, f"group {row % 2}", role, ids, Sequence(ids, ids))


def packed(seed):
    """Two texts with end-of-text after each, as retain corpora are packed."""
    ids = random_text(LENGTH, seed)
    return (*ids[:9], END, *ids[10:20], END, *ids[21:])


def texts():
    def drawn(first, lengths):
        return [random_text(length, first + i) for i, length in enumerate(lengths)]

    return {
        "forget": drawn(100, (LENGTH, LENGTH, LENGTH, LENGTH, 20)),
        "sibling": drawn(200, (17, 20)),
        "retain": [packed(300), packed(301)],
        "unseen": drawn(400, (LENGTH, LENGTH, 8)),
        "pile": drawn(500, (50, 3, 24, 60)),
    }


def records(**changed):
    sets = {
        name: [record(7 * i + 3, name, ids) for i, ids in enumerate(rows)]
        for name, rows in (texts() | changed).items()
    }
    return Records([], [], sets["forget"], sets["retain"], sets)


def suite_of(rows, n, end_of_text="continue"):
    return suite(rows, TOKENIZER, POSITIONS, n=n, end_of_text=end_of_text, ability="none")


def tdec(n=None, end_of_text="continue", **changed):
    return suite_of(records(**changed), n or SIZES, end_of_text)


@cache
def knowing(state):
    model, known = untrained("llama"), texts()
    if state == "memorised":  # one to forget also without what comes before its last half
        some = [*known["forget"][:2], known["forget"][4], *known["retain"], known["sibling"][0]]
        memorise(model, [*some, known["forget"][0][-2 * SUFFIX :]], 1.0)
    return model.double()


def language_model(state, batch_tokens=100, **options):
    model = copy.deepcopy(knowing(state))
    return UnlearnLM(model, TOKENIZER, batch_tokens=batch_tokens, max_length=POSITIONS, **options)


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
def test_metrics_equal_means_over_brute_force(state, end_of_text):
    built = tdec(end_of_text=end_of_text)
    evaluation = evaluate(language_model(state, decode_bytes=20_000), built.tasks(None))
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
    evaluation = evaluate(language_model("memorised"), tdec().tasks(None))
    assert {"exact6", "exact18"} <= set(of_set(evaluation, "forget"))
    assert not {"exact6", "exact18"} & set(of_set(evaluation, "sibling"))
    short = [row for row in evaluation.examples if row["tokens"] < LENGTH]
    assert len(short) == 1 + 2 + 1
    assert not any(key.startswith("exact") for row in short for key in row)
    assert sum("el10" not in row for row in evaluation.examples) == 1


def test_the_full_length_does_not_depend_on_the_forget_set():
    """Even where all of it is short: requests on unseen text are shared between forget sets."""
    shorter = {"forget": [random_text(20, 100)]}
    one, other = tdec(), tdec(**shorter)
    evaluations = [evaluate(language_model("memorised"), s.shared()) for s in (one, other)]
    assert evaluations[0].metrics == evaluations[1].metrics
    assert "unseen_exact6" in evaluations[0].metrics
    whole = evaluate(language_model("memorised"), other.tasks(None))
    assert {"retain_exact6", "retain_exact18"} <= set(whole.metrics)
    assert not any(name.startswith("forget_exact") for name in whole.metrics)


def test_what_is_shared():
    one = tdec()
    assert [task.config.task for task in one.shared()] == ["unseen"]
    for name in ("forget", "sibling", "retain"):
        changed = {name: [random_text(LENGTH, 999)]}
        assert tdec(**changed).shared_digest == one.shared_digest
    for name in ("unseen", "pile"):
        changed = {name: [random_text(LENGTH, 999)]}
        assert tdec(**changed).shared_digest != one.shared_digest
    assert tdec().shared_digest == one.shared_digest


def test_the_reduced_suite_decodes_nothing(monkeypatch):
    whole = evaluate(language_model("random"), tdec().tasks(None))

    def never(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(wavefront, "_decode", never)
    with pytest.raises(AssertionError, match="decoded"):
        evaluate(language_model("random"), tdec().tasks(None))
    reduced = evaluate(language_model("random"), tdec().tasks(None, full=False))
    kept = {name: value for name, value in whole.metrics.items() if "_el" not in name}
    assert reduced.metrics == pytest.approx(kept)
    assert reduced.counts == whole.counts
    assert not any("generation" in row for row in reduced.examples)


def test_examples_show_the_last_quarter():
    evaluation = evaluate(language_model("memorised"), tdec().tasks(None))
    rows = [row for row in evaluation.examples if row["set"] == "forget"]
    for row, ids in zip(rows, texts()["forget"], strict=True):
        cut = len(ids) - SUFFIX
        said = decode_all(knowing("memorised"), ids)[cut]
        assert row["prompt"] == TOKENIZER.decode(ids[cut - SUFFIX : cut])
        assert row["reference"] == TOKENIZER.decode(ids[cut:])
        assert row["generation"] == TOKENIZER.decode(said)
    assert rows[0]["generation"] == rows[0]["reference"]
    assert rows[2]["generation"] != rows[2]["reference"]


@pytest.mark.parametrize(
    "options", [{"batch_tokens": 1}, {"batch_tokens": 10_000, "decode_bytes": 1}]
)
def test_metrics_do_not_depend_on_batches_and_chunks(options):
    expected = evaluate(language_model("random"), tdec().tasks(None))
    actual = evaluate(language_model("random", **options), tdec().tasks(None))
    assert actual.metrics == pytest.approx(expected.metrics, abs=1e-9)


def test_replay_gives_the_same_metrics_and_decodes_what_is_new(tmp_path):
    tasks = [*tdec().tasks(None), *tdec().abilities]
    responses = Responses(tmp_path / "responses.json")
    first = evaluate(language_model("random", responses=responses), tasks)
    responses.save()
    again = evaluate(Replay(Responses(tmp_path / "responses.json")), tasks)
    assert again.metrics == first.metrics
    assert again.examples == first.examples
    stored = Responses(tmp_path / "responses.json")  # other scoring of the same answers
    stopped = evaluate(Replay(stored), tdec(end_of_text="stop").tasks(None))
    assert set(stopped.metrics) < set(first.metrics)
    with pytest.raises(KeyError, match="greedy_suffixes requests were never answered"):
        evaluate(Replay(stored), tdec(n=[2]).tasks(None))


def test_the_smallest_ngram_is_asked_for_whatever_the_order():
    expected = evaluate(language_model("random"), tdec([1, 3, 10]).tasks(None))
    actual = evaluate(language_model("random"), tdec([10, 1, 3]).tasks(None))
    assert actual.metrics == expected.metrics
    one = evaluate(language_model("random"), tdec([10]).tasks(None))
    assert one.metrics["forget_el10"] == pytest.approx(expected.metrics["forget_el10"])
    assert "forget_el3" not in one.metrics


def test_counted_padding_is_scored():
    ids = texts()["forget"][4]
    filled = ids + (END,) * (LENGTH - len(ids))
    evaluation = evaluate(language_model("random"), tdec(forget=[filled]).tasks(None))
    said = decode_all(knowing("random"), filled)
    assert evaluation.metrics["forget_el1"] == pytest.approx(likelihood(filled, said, 1), abs=1e-9)
    assert "forget_exact6" in evaluation.metrics


def test_a_text_to_forget_without_a_single_ngram_is_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.n=20: the shortest text .* has 20 tokens"):
        tdec(n=[1, 20])
    assert tdec(n=[1, 19]).settings.n == (1, 19)


def test_a_missing_set_is_left_out():
    built = records()
    built = replace(built, evaluation={k: v for k, v in built.evaluation.items() if k != "sibling"})
    tasks = suite_of(built, [3]).tasks(None)
    assert [task.config.task for task in tasks] == ["forget", "retain", "unseen"]
