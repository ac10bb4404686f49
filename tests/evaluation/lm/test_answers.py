"""Answers are kept as they come: cut off, damaged, asked by two at once, interrupted, they stay right."""

import json
import logging
import os
import signal
import threading

import pytest

from loku_exp.data.records import IGNORED, Sequence
from loku_exp.errors import ModelError, StorageError
from loku_exp.evaluation.lm import answers as keeping
from loku_exp.evaluation.lm import inference as asking
from loku_exp.evaluation.lm.answers import Answers, TokenScores, key_of
from tests.evaluation.tdec.memorising import random_text, untrained
from tests.helpers import TOKENIZER, inference_of, instances, lm_of, tiny_model, until

REQUESTS = instances("generate_ids", [(f"question {k}", k) for k in range(12)])
SIZE = 3  # requests of a batch


class Model:
    """Answers request k with [k, k / 7], in batches; it may be stopped before one."""

    def __init__(self, stop_before=None):
        self.asked, self.stop_before = [], stop_before

    def __call__(self, kind, requests, wanted):
        starts = range(0, len(requests), SIZE)
        starts = [s for s in starts if any(map(wanted, range(s, min(s + SIZE, len(requests)))))]
        for number, start in enumerate(starts):
            if number == self.stop_before:
                raise KeyboardInterrupt
            batch = requests[start : start + SIZE]
            self.asked.append([request.args[1] for request in batch])
            yield {start + k: [r.args[1], r.args[1] / 7] for k, r in enumerate(batch)}


EXPECTED = [[k, k / 7] for k in range(12)]
BATCHES = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "of a subject" / "answers.jsonl"


@pytest.fixture(autouse=True)
def write_at_once(monkeypatch):
    monkeypatch.setattr(keeping, "SECONDS_BETWEEN_WRITES", -1.0)


def ask(file, model, requests=REQUESTS):
    """What is answered, by a process of its own as it were."""
    answers = Answers(file)
    try:
        return answers.answer("generate_ids", requests, model)
    finally:
        answers.close()


def test_the_file_grows_with_every_batch(file):
    lengths = []

    class Watched(Model):
        def __call__(self, kind, requests, wanted):
            for batch in super().__call__(kind, requests, wanted):
                lengths.append(len(file.read_text().splitlines()) if file.exists() else 0)
                yield batch

    assert ask(file, Watched()) == EXPECTED
    assert lengths == [0, 1, 2, 3]
    assert len(file.read_text().splitlines()) == 4


def test_between_two_writes_pass_some_seconds(file, monkeypatch):
    monkeypatch.setattr(keeping, "SECONDS_BETWEEN_WRITES", 1000.0)
    with pytest.raises(KeyboardInterrupt):
        Answers(file).answer("generate_ids", REQUESTS, Model(stop_before=2))
    assert not file.exists()
    with pytest.raises(KeyboardInterrupt):
        ask(file, Model(stop_before=2))  # an interrupt, other than a kill, lets it write
    assert len(file.read_text().splitlines()) == 2


def test_what_is_known_is_not_asked_again(file):
    first, second = Model(), Model()
    assert ask(file, first) == ask(file, second) == EXPECTED
    assert (first.asked, second.asked) == (BATCHES, [])
    more = [*REQUESTS, *instances("generate_ids", [("", 99)])]
    third = Model()
    assert ask(file, third, more)[-1] == [99, 99 / 7]
    assert third.asked == [[99]]


def test_equal_requests_are_computed_once_whatever_their_text_for_people(file):
    twice = instances("generate_ids", [("who?", 5), ("why?", 5), ("who?", 6)])
    model = Model()
    assert ask(file, model, twice) == [EXPECTED[5], EXPECTED[5], EXPECTED[6]]
    assert model.asked == [[5, 6]]


def test_requests_are_told_apart_by_type_and_content():
    stock = instances("loglikelihood", [("a", "b"), ("b", "b"), ("a", "c")])
    own = instances(
        "token_scores", [("a", Sequence((1, 2), (1, 2))), ("a", Sequence((1, 2), (-1, 2)))]
    )
    keys = {key_of("loglikelihood", request) for request in stock}
    keys |= {key_of(kind, request) for request in own for kind in ("token_scores", "generate_ids")}
    assert len(keys) == 3 + 4


def test_a_file_cut_off_at_any_byte_keeps_what_was_whole(file):
    ask(file, Model())
    whole = file.read_bytes()
    ends = [k + 1 for k, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(ends[2] - 9, len(whole)):
        file.write_bytes(whole[:length])
        kept = sum(end - 1 <= length for end in ends)  # a line without its line break is whole, too
        model = Model()
        assert ask(file, model) == EXPECTED
        assert model.asked == BATCHES[kept:]
        assert file.read_bytes() == whole[: len(whole) if kept < 4 else length]
    ask(file, Model(), more := instances("generate_ids", [("", 99)]))  # no line joins the last one
    assert ask(file, Model(stop_before=0), [*REQUESTS, *more]) == [*EXPECTED, [99, 99 / 7]]


def test_nothing_but_rubbish_is_asked_anew(file):
    file.parent.mkdir()
    for content in (b"", b"\n\n", b"\xff\xfe\x00", b'{"a": 1}\n', b"00000000 {}\n" * 3):
        file.write_bytes(content)
        model = Model()
        assert ask(file, model) == EXPECTED
        assert model.asked == BATCHES
        assert ask(file, Model(stop_before=0)) == EXPECTED


@pytest.mark.parametrize("line", range(4))
def test_any_changed_byte_is_noticed_and_its_batch_asked_again(file, line, caplog):
    ask(file, Model())
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    start = sum(map(len, lines[:line]))
    for place in range(start, start + len(lines[line]) - 1):
        changed = bytes([whole[place] ^ 1])  # of a digit another digit
        file.write_bytes(whole[:place] + changed + whole[place + 1 :])
        caplog.clear()
        model = Model()
        assert ask(file, model) == EXPECTED
        assert model.asked == [BATCHES[line]]
        assert "1 damaged lines, asked again" in caplog.text
        assert sorted(file.read_bytes().splitlines(True)) == sorted(lines)  # said once
    assert Answers(file).known.keys() == {key_of("generate_ids", r) for r in REQUESTS}


def test_a_lost_line_break_costs_two_batches_and_no_more(file):
    ask(file, Model())
    whole = file.read_bytes()
    place = whole.index(b"\n")
    file.write_bytes(whole[:place] + b"x" + whole[place + 1 :])
    model = Model()
    assert ask(file, model) == EXPECTED
    assert model.asked == BATCHES[:2]


def test_what_is_only_read_is_left_as_it_is(file):
    """Another process may be in the middle of a line."""
    ask(file, Model())
    cut = file.read_bytes()[:-5]
    file.write_bytes(cut)
    answers = Answers(file)
    assert len(answers.known) == 9
    assert answers.answer("generate_ids", REQUESTS[:9], Model(stop_before=0)) == EXPECTED[:9]
    answers.remember("token_scores", (1,), [2])
    answers.close()
    assert file.read_bytes() == cut
    assert answers.answer("token_scores", instances("token_scores", [("", 1)]), None) == [[2]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_answers_that_are_no_numbers_are_refused(file, value):
    def broken(kind, requests, wanted):
        yield {0: [1, 0.5]}
        yield {1: TokenScores([-0.5, value], [True, False])}

    with pytest.raises(ModelError, match=r"not finite .*try model\.dtype=float32"):
        ask(file, broken, REQUESTS[:2])
    assert list(Answers(file).known.values()) == [[1, 0.5]]
    json.loads(file.read_text().partition(" ")[2], parse_constant=pytest.fail)


def test_text_of_any_kind_comes_back(file):
    texts = ["line\u2028break", "lone \ud800 surrogate", "a\r\nb", "\x00", "я 漢字", '"\\']
    requests = instances("generate_until", [(text, {}) for text in texts])

    def echo(kind, requests, wanted):
        yield {k: request.args[0] for k, request in enumerate(requests)}

    for compute in (echo, None):
        answers = Answers(file)
        assert answers.answer("generate_until", requests, compute) == texts
        answers.close()
    assert len(file.read_bytes().split(b"\n")) == 2


# -- two that ask at once ------------------------------------------------------------------------


def test_who_asks_while_another_does_waits_and_computes_nothing(file, caplog):
    caplog.set_level(logging.INFO)
    begun, go_on, found = threading.Event(), threading.Event(), {}

    class Slow(Model):
        def __call__(self, kind, requests, wanted):
            for batch in super().__call__(kind, requests, wanted):
                yield batch
                begun.set()
                assert go_on.wait(20)

    first, second = Slow(), Model()
    threads = [
        threading.Thread(target=lambda: found.update(first=ask(file, first))),
        threading.Thread(target=lambda: found.update(second=ask(file, second))),
    ]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    until(lambda: "another process is asking the same model" in caplog.text)
    assert second.asked == []
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert found == {"first": EXPECTED, "second": EXPECTED}
    assert (first.asked, second.asked) == (BATCHES, [])


def test_what_a_killed_process_had_written_is_kept(file):
    """Its lock goes with it."""
    child = os.fork()
    if child == 0:
        try:
            Answers(file).answer("generate_ids", REQUESTS, Model(stop_before=2))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    model = Model()
    assert ask(file, model) == EXPECTED
    assert model.asked == BATCHES[2:]


def test_whoever_cannot_write_still_lets_others_ask(file, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    answers = Answers(file)
    monkeypatch.setattr(keeping.os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot be written .*No space left"):
        answers.answer("generate_ids", REQUESTS, Model())
    answers.close()  # what failed was said, and is not written twice
    monkeypatch.undo()
    assert ask(file, Model()) == EXPECTED


# -- interrupted evaluations of models -----------------------------------------------------------


def labelled(prompt, answer, seed):
    ids = random_text(prompt, seed) + random_text(answer, 50 * seed + answer)
    return Sequence(ids, (IGNORED,) * prompt + ids[prompt:])


SCORED = [labelled(5 + k % 4, n, k) for k in range(6) for n in range(1, 2 + k)]
WORDS = ["a b", "c d e", "a b c d e f g", "b a", "g", "e e e e e"]
ASKED = {
    "token_scores": [("", sequence) for sequence in SCORED],
    "generate_ids": [("", random_text(3 + k % 5, k), 12 + k % 3) for k in range(14)],
    "greedy_suffixes": [("", random_text(8 + k % 5, k), n) for k in range(8) for n in (0, 3)],
    "loglikelihood": [(word, " " + word[:k]) for word in WORDS for k in (1, 3)],
    "loglikelihood_rolling": [(word,) for word in WORDS],
    "generate_until": [(word, {"until": ["\n"], "max_gen_toks": 4}) for word in WORDS],
}


def of_kind(kind):
    return tiny_model(vocabulary=len(TOKENIZER)) if kind == "text" else untrained(kind)


@pytest.fixture
def forwards(monkeypatch):
    """What each forward was given; questions whether a model reads trees are answered beforehand."""
    monkeypatch.setattr(asking, "obeys", lambda model, width: type(model).__name__[:3] != "GPT")
    monkeypatch.setattr(asking, "STOCK_BATCH", 2)
    seen = []

    def watch(model):
        forward = model.forward

        def recording(*args, **named):
            seen.append(named["input_ids"].tolist())
            return forward(*args, **named)

        monkeypatch.setattr(model, "forward", recording)
        return seen

    return watch


def interrupted(inference, after):
    """A computation that ends before one more batch."""

    def compute(kind, requests, wanted):
        for number, batch in enumerate(inference.batches(kind, requests, wanted)):
            yield batch
            if number + 1 == after:
                raise KeyboardInterrupt

    return compute


IDS = ("token_scores", "generate_ids", "greedy_suffixes")
TEXT = ("loglikelihood", "loglikelihood_rolling", "generate_until")
CASES = [(kind, asked) for kind in ("gpt_neo", "llama") for asked in IDS]


@pytest.mark.parametrize(("kind", "asked"), [*CASES, *(("text", asked) for asked in TEXT)])
def test_an_interrupted_evaluation_ends_with_the_same_bits(kind, asked, forwards, tmp_path):
    model, requests = of_kind(kind), instances(asked, ASKED[asked])
    seen = forwards(model)
    inference = inference_of(model, batch_tokens=20 if kind == "text" else 40)
    whole = json.dumps(Answers().answer(asked, requests, inference.batches))
    expected = list(seen)
    count = sum(1 for _ in inference.batches(asked, requests))
    assert count > 2
    for after in range(1, count + 1):
        seen.clear()
        file = tmp_path / f"{after}.jsonl"
        broken = Answers(file)
        with pytest.raises(KeyboardInterrupt):
            broken.answer(asked, requests, interrupted(inference, after))
        broken.close()
        answers = Answers(file)
        assert json.dumps(answers.answer(asked, requests, inference.batches)) == whole
        answers.close()
        assert seen == expected


@pytest.mark.parametrize("asked", IDS)
def test_a_damaged_batch_is_asked_again_as_it_was(asked, forwards, tmp_path):
    model, requests = of_kind("llama"), instances(asked, ASKED[asked])
    inference = inference_of(model, batch_tokens=40)
    file = tmp_path / "answers.jsonl"
    answers = Answers(file)
    whole = json.dumps(answers.answer(asked, requests, inference.batches))
    answers.close()
    lines = file.read_text().splitlines(keepends=True)
    for line in lines:
        file.write_text(
            "".join([one for one in lines if one != line]) + line.replace(": [", ": [7")
        )
        again = Answers(file)
        assert json.dumps(again.answer(asked, requests, inference.batches)) == whole
        again.close()


def test_a_text_that_was_read_for_extraction_is_scored_with_it(tmp_path):
    ids, file = random_text(12, 1), tmp_path / "answers.jsonl"
    lm = lm_of(inference_of(untrained("llama")), Answers(file))
    (greedy,) = lm.greedy_suffixes(instances("greedy_suffixes", [("row 1", ids, 3)]))
    lm.answers.close()
    kept = Answers(file)
    (scores,) = kept.answer(
        "token_scores", instances("token_scores", [("", Sequence(ids, ids))]), None
    )
    assert scores == [
        greedy.logprobs,
        [g == t for g, t in zip(greedy.argmax, ids[1:], strict=True)],
    ]
