"""What long work says: a line now and then with what is done and left, in the log in any case."""

import io
import json
import logging
import sys
from datetime import datetime
from types import SimpleNamespace

import pytest

from loku_exp.runtime import logs
from loku_exp.runtime.logs import Progress, Stopwatch, duration, log_file, progress, start_logging
from loku_exp.training.progress import Told, TrainingProgress
from tests.training.small import trained


class Clock:
    """A clock that goes on by so many seconds each time somebody works."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(logs, "time", made)
    noon = datetime(2026, 1, 1, 12, 0)
    monkeypatch.setattr(logs, "datetime", SimpleNamespace(now=lambda _=None: noon))
    return made


@pytest.fixture
def said(monkeypatch):
    """Lines as they are said."""
    lines: list[str] = []
    monkeypatch.setattr(logs.log, "info", lambda text, *values: lines.append(text % values))
    return lines


def work(shown: Progress, clock: Clock, steps: int, seconds: float, **values: str) -> None:
    for _ in range(steps):
        clock.now += seconds
        shown.update(1, **values)


def test_a_line_comes_every_thirty_seconds_with_rate_and_end(clock, said):
    shown = Progress(100, "scoring", "text")
    work(shown, clock, 3, 9.0)
    assert said == []  # 27 seconds
    work(shown, clock, 1, 9.0)
    assert said == ["scoring: 4 of 100 texts, 9.0 s each, about 14 min left, until 12:14"]
    work(shown, clock, 3, 9.0)
    assert len(said) == 1
    work(shown, clock, 1, 9.0)
    assert said[1].startswith("scoring: 8 of 100 texts, 9.0 s each, about 14 min left")
    shown.close()


def test_fast_work_has_a_rate_and_few_lines(clock, said):
    shown = Progress(1000, "generating", "answer")
    work(shown, clock, 1000, 0.1)
    assert len(said) == 3  # 100 seconds
    assert said[0].startswith("generating: 300 of 1000 answers, 10.0 a second, about 70 s left")


def test_short_work_says_nothing(clock, said):
    with progress(20, "reading", "text") as shown:
        work(shown, clock, 20, 1.4)
    assert said == []


def test_what_was_done_before_counts_for_no_rate(clock, said):
    """A training that goes on from update 80 knows its rate from those it makes itself."""
    shown = Progress(100, "unlearning", "update", done=80)
    work(shown, clock, 4, 10.0, forget="0.5")
    assert said[0].startswith(
        "unlearning: 83 of 100 updates, forget 0.5, 10.0 s each, about 3 min left"
    )


def test_batches_count_by_their_size(clock, said):
    shown = Progress(64, "scoring", "text")
    clock.now += 32
    shown.update(16)
    assert said[0].startswith("scoring: 16 of 64 texts, 2.0 s each, about 96 s left")


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_are_in_the_log_file_and_on_stderr_where_it_is_no_terminal(
    own_logging, tmp_path, clock, monkeypatch, capsys, terminal
):
    start_logging()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with log_file(tmp_path / "run.log"):
        shown = Progress(10, "scoring", "text")
        work(shown, clock, 1, 40.0)
        shown.close()
        logging.getLogger("loku_exp.stages").info("evaluating target")
    text = (tmp_path / "run.log").read_text()
    assert "INFO    loku_exp.runtime.logs: scoring: 1 of 10 texts, 40.0 s each" in text
    assert "evaluating target" in text
    on_terminal = capsys.readouterr().err
    assert ("scoring: 1 of 10 texts, 40.0 s each" in on_terminal) is not terminal
    assert "evaluating target" in on_terminal
    assert "\r" not in text  # a bar is for terminals


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What its lines show: a carriage return goes to the beginning, and what comes writes over it."""
        shown = []
        for line in self.getvalue().split("\n"):
            seen = ""
            for part in line.split("\r"):
                seen = part + seen[len(part) :]
            shown.append(seen.rstrip())
        return shown


def test_a_line_of_the_log_does_not_stick_to_a_bar(own_logging, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    start_logging()
    with progress(10, "scoring", "text") as shown:
        shown.update()
        shown.bar.refresh()
        assert terminal.screen()[0].startswith("scoring:  10%")  # a bar is drawn
        logging.getLogger("loku_exp.stages").warning("two rows are left out")
        shown.update(4)
        shown.bar.refresh()
        line, bar = terminal.screen()
        assert line == "two rows are left out"
        assert bar.startswith("scoring:  50%")
    assert terminal.screen() == ["two rows are left out", ""]


def test_a_training_says_its_losses(clock, said, tmp_path):
    class Slow(TrainingProgress):
        def on_step_end(self, *_, **__):
            clock.now += 20

    trained(tmp_path, callbacks=[Slow("unlearning"), Told()])
    # two updates in 40 seconds, then a line every other one
    assert [line.split(",")[0] for line in said] == [
        f"unlearning: {done} of 6 updates" for done in (2, 4, 6)
    ]
    assert all(", forget " in line and ", retain " in line for line in said)


def test_the_second_of_two_processes_has_no_progress(clock, said, tmp_path):
    shown = TrainingProgress("unlearning")
    state = type("State", (), {"is_world_process_zero": False})()
    shown.on_train_begin(None, state, None)
    clock.now += 100
    shown.on_log(None, state, None, logs={"loss": 1.0})
    shown.on_train_end(None, state, None)
    assert said == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (14.4, "14 s"), (99.4, "99 s"), (100, "2 min"), (179, "3 min"), (3599, "1 h 00 min"),
        (7500, "2 h 05 min"), (90000, "25 h 00 min"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_a_stopwatch_goes_on_over_attempts(tmp_path, clock):
    file = tmp_path / "seconds.json"
    first = Stopwatch()
    first.keep_in(file)

    def interrupted():
        with first("unlearning"):
            clock.now += 10
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    second = Stopwatch()
    second.started = "later"
    second.keep_in(file)
    with second("unlearning"):
        clock.now += 5
    with second("evaluation"):
        clock.now += 1
    assert second.seconds == {"unlearning": 15.0, "evaluation": 1.0}
    assert second.started == first.started
    assert json.loads(file.read_text()) == {"started": first.started, "seconds": second.seconds}
    file.write_text("{")  # damaged: it begins anew
    third = Stopwatch()
    third.keep_in(file)
    assert third.seconds == {}


def test_a_failure_is_in_the_log_file_with_its_traceback(tmp_path, capsys):
    with pytest.raises(KeyError), log_file(tmp_path / "run.log"):
        _ = {}["absent"]
    text = (tmp_path / "run.log").read_text()
    assert "ERROR   loku_exp.runtime.logs: the run stopped here" in text
    assert "KeyError: 'absent'" in text
    assert "Traceback" not in capsys.readouterr().err


def test_of_libraries_the_log_file_has_warnings_alone(own_logging, tmp_path):
    start_logging()
    with log_file(tmp_path / "run.log"):
        for name in ("loku_exp.stages.evaluate", "lm_eval.api.task"):
            logging.getLogger(name).info("told by %s", name)
            logging.getLogger(name).warning("warned by %s", name)
    text = (tmp_path / "run.log").read_text()
    assert "told by loku_exp" in text
    assert "told by lm_eval" not in text
    assert text.count("warned by") == 2
