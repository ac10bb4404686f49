"""A suite of one's own is one small file: tasks, words, a judge; everything else has a default."""

import pytest

from loku_exp.evaluation.catalogue import Judgement, Metric, completed
from loku_exp.evaluation.collapse import collapse
from loku_exp.evaluation.halves import metrics_of
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.suite import Facts, Suite, row_means
from loku_exp.evaluation.tasks import RowTask
from loku_exp.search.criterion import Criterion, judged
from tests.helpers import never, tiny_records

# -- the suite: what a user writes ---------------------------------------------------------------


def ask(record):
    return [("generate_ids", (record.question, record.prompt, 8))]


def named(record, answers):
    return 17 in answers[0]


def judge(model, target, reference, facts):
    share, broken = model.metrics["forget_named"], collapse(model, target)
    sentence = f"names {share:.0%} of the forget set"
    return Judgement(success=share < 0.5, collapsed=bool(broken), sentence=sentence)


def names_suite(records):
    return Suite(
        tasks=lambda reference, depth: [
            RowTask(s, r, ask, {"named": named}) for s, r in records.evaluation.items()
        ],
        catalogue=[
            Metric(name=f"{s}_named", label=f"{s}, names 17", summary=True)
            for s in records.evaluation
        ],
        judge=judge,
    )


# ------------------------------------------------------------------------------------------------


class Knowing:
    """A model that says 17 of some rows; a prompt is known by its ids."""

    def __init__(self, rows):
        self.prompts = {
            record.prompt: record.row
            for records in tiny_records().evaluation.values()
            for record in records
        }
        self.rows = rows

    def batches(self, kind, requests, wanted):
        assert kind == "generate_ids"
        for index, request in enumerate(requests):
            known = self.prompts[request.args[1]] in self.rows
            yield {index: [17, 3] if known else [3, 3]}


def asked(rows):
    return evaluate(
        UnlearnLM(Answers(), lambda: Knowing(rows)), names_suite(tiny_records()).tasks(None, "full")
    )


EVERYTHING = range(100)
LESS = [*range(4, 100)]


def test_it_goes_through_the_harness():
    found = asked(LESS)
    assert found.metrics == {
        "forget_named": pytest.approx(2 / 6),
        "retain_named": 1.0,
        "authors_named": 1.0,
        "facts_named": 1.0,
    }
    assert found.counts == dict.fromkeys(("forget", "retain", "authors", "facts"), 6)
    forget = [row for row in found.examples if row["set"] == "forget"]
    assert [row["named"] for row in forget] == [0, 0, 0, 0, 1, 1]


def test_its_own_words_are_used():
    suite = names_suite(tiny_records())
    found, target = asked(LESS), asked(EVERYTHING)
    judgement = suite.judge(found, target, None, Facts())
    assert judgement.sentence == "names 33% of the forget set"
    assert (judgement.success, judgement.collapsed) == (True, False)
    shown = completed(suite.catalogue, found.metrics)
    assert [metric.label for metric in shown] == [
        f"{name}, names 17" for name in ("forget", "retain", "authors", "facts")
    ]


def test_defaults_are_none_or_means():
    suite = names_suite(tiny_records())
    found = asked(LESS)
    assert suite.aggregate(found.examples, None) == found.metrics
    assert (suite.stop, suite.read_log, list(suite.abilities)) == (None, None, [])
    assert (suite.protocol, list(suite.described), suite.problems(1)) == ({}, [], [])


def test_a_search_and_its_halves_need_nothing_more():
    suite = names_suite(tiny_records())
    evaluations = {"target": asked(EVERYTHING), "unlearned": asked(LESS)}
    rows = [{"model": name, **row} for name, found in evaluations.items() for row in found.examples]
    assert metrics_of(rows, suite) == {n: found.metrics for n, found in evaluations.items()}
    problem, value, above = judged(
        rows, Criterion("retain_named", "forget_named", 0.5, 0, 0), suite
    )
    assert (problem, value) == (None, 1.0)
    assert above in (0.0 - 0.5, 1.0 - 0.5)  # of the authors whose rows were drawn


def test_what_is_known_is_not_asked_of_the_model_again():
    answers = Answers()
    tasks = names_suite(tiny_records()).tasks(None, "full")
    first = evaluate(UnlearnLM(answers, lambda: Knowing(LESS)), tasks)
    assert evaluate(UnlearnLM(answers, never), tasks) == first


def test_means_of_rows_leave_out_what_is_no_number():
    rows = [
        {"set": "a", "row": 3, "tokens": 5, "x": 1.0, "text": "1"},
        {"set": "a", "row": 4, "tokens": 5, "x": 2.0, "y": 7, "none": None},
        {"set": "b", "row": 3, "x": 4},
    ]
    assert row_means(rows) == {"a_x": 1.5, "a_y": 7, "b_x": 4}
    assert row_means([]) == {}
