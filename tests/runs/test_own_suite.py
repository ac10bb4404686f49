"""A suite of thirty lines in a package of a user's own goes through everything that reads numbers."""

import json
import sys

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.report.__main__ import main as report
from loku_exp.results import files as results
from loku_exp.results.table import header_and_rows, notes
from loku_exp.run import run
from loku_exp.runtime.cache import Cache
from loku_exp.search.criterion import Criterion, judged
from loku_exp.stages.inputs import load_inputs
from loku_exp.sweeps.jobs import Job
from loku_exp.sweeps.table import header_and_cells
from loku_exp.tracking import dashboard

SUITE = '''
"""How many words a model says of a question: a suite with one metric of its own."""

from loku_exp.evaluation.catalogue import Judgement, Metric
from loku_exp.evaluation.suite import Suite
from loku_exp.evaluation.tasks import RowTask


def ask(row):
    return [("generate_ids", (row.question, row.prompt, len(row.prompt) + 12))]


def judge(model, target, reference, facts):
    said = model.metrics["forget_tokens_said"]
    return Judgement(success=said < 12, collapsed=said == 0, sentence=f"it says {said:.1f} tokens")


def wordy(records):
    """Return the suite."""
    return Suite(
        tasks=lambda reference, depth: [
            RowTask(name, rows, ask, {"tokens_said": lambda row, answers: len(answers[0])})
            for name, rows in records.evaluation.items()
        ],
        catalogue=[
            Metric(name=f"{name}_tokens_said", label=f"{name}, tokens said", form="count",
                   part="knowledge" if name == "forget" else "utility", summary=True)
            for name in records.evaluation
        ],
        judge=judge,
    )
'''
LABELS = [f"{name}, tokens said" for name in ("forget", "retain", "authors", "facts")]
NAMES = [f"{name}_tokens_said" for name in ("forget", "retain", "authors", "facts")]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, shared_cache):
    """Two runs of a sweep over losses, evaluated by the suite, as jobs."""
    place = tmp_path_factory.mktemp("wordy")
    (place / "conf/evaluation").mkdir(parents=True)
    (place / "wordy_suite.py").write_text(SUITE)
    text = "defaults: [common, _self_]\n_target_: wordy_suite.wordy\ncurve: full\n"
    (place / "conf/evaluation/wordy.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        jobs = []
        for loss in ("gd", "ihl"):
            overrides = ["experiment=quick", "evaluation=wordy", f"loss={loss}", "init=vanilla"]
            overrides += [f"dataset.known_by={NAMES[0]}", f"output_dir={place}/outputs"]
            overrides += [f"cache_dir={shared_cache}", "training.epochs=1"]
            config = compose_config(overrides, str(place / "conf"))
            folder = run(config)
            jobs.append(Job(f"loss={loss}", overrides, str(place / "conf"), config, folder))
        yield jobs
    sys.modules.pop("wordy_suite", None)


def test_it_is_written_in_thirty_lines():
    assert len([line for line in SUITE.splitlines() if line.strip()]) <= 30


def test_run_and_table(swept):
    record = results.read(swept[0].folder)
    assert [metric.name for metric in record.catalogue] == NAMES
    assert record.judgement.sentence.startswith("it says ")
    header, rows = header_and_rows(record)
    assert header == ["", "target", "unlearned", "reference"]
    assert [row[0] for row in rows] == LABELS
    assert all(all(row) for row in rows)
    assert notes(record)[0] == f"verdict: {record.judgement.sentence}"
    assert f"| {LABELS[0]} |" in (swept[0].folder / "results.md").read_text()
    assert (swept[0].folder / "curve.png").is_file()
    assert [point.metrics.keys() for point in record.curve] == [set(NAMES)] * len(record.curve)


def test_sweep_table(swept):
    header, cells = header_and_cells(swept, [results.read(job.folder) for job in swept])
    assert header == ["run", "state", *LABELS, "time"]
    assert [row[0] for row in cells] == ["loss=gd", "loss=ihl"]
    assert all(float(cell) > 0 for row in cells for cell in row[2:-1])


def test_report(swept):
    root = swept[0].folder.parent
    report([str(root), "--to", str(root.parent / "report")])
    page = (root.parent / "report/report.html").read_text()
    assert all(label in page for label in LABELS)
    assert "it says " in page
    assert "forget quality" not in page
    report(["compare", *(str(job.folder) for job in swept), "--to", str(root.parent / "pair")])
    (table,) = (root.parent / "pair").glob("compare-*.csv")
    assert all(label in table.read_text() for label in LABELS)


def test_dashboard(swept):
    pytest.importorskip("wandb_workspaces")
    records, problems = dashboard.records_of(swept[0].folder.parent)
    assert (len(records), problems) == (2, [])
    made = json.dumps(dashboard.specification(dashboard.workspace(records, "e", "p")))
    assert all(f"unlearned/{name}" in made for name in NAMES)
    assert "tokens said against retain, tokens said" in made
    assert "forget_quality" not in made


def test_search(swept, shared_cache):
    suite = load_inputs(swept[0].config, Cache(str(shared_cache))).suite
    text = (swept[0].folder / results.EXAMPLES_FILE).read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    problem, value, above = judged(rows, Criterion(NAMES[1], NAMES[0], None, 100.0, 0), suite)
    assert problem is None
    assert value > 0
    assert above < 0
