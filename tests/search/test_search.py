"""A search: the best setting that forgets enough, chosen on half of the rows, resumed as if undisturbed."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from loku_exp.errors import ConfigError, StorageError, TrainingError, UserError
from loku_exp.evaluation.halves import split_examples
from loku_exp.results import files as results
from loku_exp.search import __main__ as search
from loku_exp.search.criterion import Criterion, judged
from tests.helpers import tiny_suite

optuna = pytest.importorskip("optuna")
CRITERION = Criterion("model_utility", "forget_prob", None, 0.05, 0)
SUITE = tiny_suite()


def examples(utility=0.5, forget=0.2, retain_prob=None):
    """Rows of three models: the reference has forget probability 0.25, the target knows everything."""
    rows = []
    models = {"target": (1.0, 0.9), "reference": (0.25, 0.9), "unlearned": (forget, utility)}
    for model, (prob, level) in models.items():
        for name in ("forget", "retain", "authors", "facts"):
            value = prob if name == "forget" else level
            if model == "unlearned" and name == "retain" and retain_prob is not None:
                value = retain_prob
            rows += [
                {
                    "model": model,
                    "set": name,
                    "row": k,
                    "group": f"author {k // 2}",
                    "prob": value,
                    "rouge": level,
                    "truth_ratio": level,
                    "log_ratio": 0.1 * k,
                    "generation": "words",
                }
                for k in range(8)
            ]
    return rows  # fmt: skip


def test_value_and_limit_are_those_of_the_selection_half_alone():
    rows = examples(utility=0.6)
    _, reported = split_examples(rows, 0)
    for row in reported:
        row["prob"] = row["rouge"] = row["truth_ratio"] = 0.123
    problem, value, above = judged(rows, CRITERION, SUITE)
    assert problem is None
    assert value == pytest.approx(0.6)
    assert above == pytest.approx(0.2 - (0.25 + 0.05))


def test_the_limit_may_be_given():
    criterion = Criterion("retain_rouge", "forget_prob", 0.1, 0.0, 0)
    assert judged(examples(), criterion, SUITE)[2] == pytest.approx(0.1)


def test_without_a_reference_the_limit_must_be_given():
    rows = [row for row in examples() if row["model"] != "reference"]
    with pytest.raises(ConfigError, match=r"forget_prob has no reference .*add --at-most"):
        judged(rows, CRITERION, SUITE)
    given = Criterion("model_utility", "forget_prob", 0.3, 0.05, 0)
    assert judged(rows, given, SUITE)[2] == pytest.approx(0.2 - 0.3)


def test_a_collapsed_run_and_nan_are_failures():
    collapsed = judged(examples(retain_prob=0.1), CRITERION, SUITE)
    assert collapsed[0].startswith("COLLAPSED (retain probability")
    assert collapsed[1:] == (None, None)
    nan = judged(examples(forget=float("nan")), CRITERION, SUITE)
    assert nan[0].startswith("model_utility is")
    assert nan[1:] == (None, None)


def test_an_unknown_metric_names_those_there_are():
    with pytest.raises(ConfigError, match=r"utility: no metric .*model_utility"):
        judged(examples(), Criterion("utility", "forget_prob", None, 0, 0), SUITE)


@pytest.fixture
def start(tmp_path, shared_cache, monkeypatch):
    """Search with a stand-in for the run: more learning forgets more and costs utility."""
    ran = []

    def run(config, folder):
        rate = config.training.learning_rate
        ran.append(rate)
        if hook := hooks.get(len(ran)):
            raise hook
        utility, forget = 0.9 - 40 * rate, 0.6 - 50 * rate
        lines = "".join(json.dumps(row) + "\n" for row in examples(utility, forget))
        (folder / "examples.jsonl").write_text(lines)
        (folder / "done.json").write_text("{}")

    def claiming(config):
        from loku_exp.runtime.cache import Cache
        from loku_exp.stages import identity
        from loku_exp.stages.inputs import load_inputs
        from loku_exp.stages.machine import on_this_machine

        config = on_this_machine(config)
        inputs = load_inputs(config, Cache(config.cache_dir))
        folder = identity.run_folder(config, identity.run_id(config, inputs))
        folder.mkdir(parents=True, exist_ok=True)
        run(config, folder)

    monkeypatch.setattr("loku_exp.run.run", claiming)
    monkeypatch.setenv("LOKU_SWEEP", "search")  # which a search would leave set
    monkeypatch.setattr(results, "read", lambda folder: SimpleNamespace(models={}))
    hooks, place = {}, {}

    def start(name, *arguments, trials=4, fail_at=None, error=None):
        hooks.clear()
        ran.clear()
        if fail_at:
            hooks[fail_at] = error
        place["output"] = tmp_path / name
        world = [
            "dataset.num_authors=4",
            "dataset.num_forget=1",
            "dataset.num_others=15",
            "training.batch_size=1",
        ]
        world += [
            "training.micro_batch_size=1",
            "model.vocabulary=300",
            f"cache_dir={shared_cache}",
        ]
        line = ["--trials", str(trials), *arguments, *world, f"output_dir={place['output']}"]
        search.search(search._arguments().parse_intermixed_args(line))
        file = max(place["output"].glob("search-*.json"), key=os.path.getmtime)
        return json.loads(file.read_text()), list(ran)

    return start


RATE = "training.learning_rate=tag(log,interval(1e-3,1e-2))"


def test_the_best_that_forgets_enough_is_found_and_reported(start, capsys):
    content, ran = start("one", RATE)
    assert len(ran) == 4
    enough = [rate for rate in ran if 0.6 - 50 * rate <= 0.30]
    assert content["best"]["params"]["training.learning_rate"] == min(enough)
    assert content["trials"] == {"all": 4, "failed": 0, "feasible": len(enough)}
    assert "unlearned" in content["reported"]
    assert "took no part in the choice" in capsys.readouterr().out
    assert start("one", RATE)[1] == []  # all trials are there
    assert len(start("one", RATE, trials=5)[1]) == 1


@pytest.mark.slow
def test_the_table_has_the_suites_words_and_both_halves(start, capsys):
    content, _ = start("words", RATE)
    shown = capsys.readouterr().out
    for words in (
        "model utility",
        "forget set, probability",
        "KS distance",
        "unlearned,",
        "selection half",
    ):
        assert words in shown
    for half in ("selection", "reported"):
        assert content[half].keys() == {"target", "reference", "unlearned"}
        assert content[half]["reference"]["forget_prob"] == pytest.approx(0.25)


@pytest.mark.parametrize("option", ["--maximise", "--constrain"])
def test_a_metric_that_the_suite_lacks_is_refused_before_the_first_trial(start, tmp_path, option):
    with pytest.raises(
        ConfigError, match=r"forget_ma: the suite of .* has no such metric.*forget_prob"
    ):
        start("lacking", RATE, option, "forget_ma")
    assert not list((tmp_path / "lacking").glob("*/done.json"))


@pytest.mark.slow
def test_an_interrupted_search_asks_for_the_same_trials(start):
    undisturbed = start("whole", RATE)[1]
    with pytest.raises(KeyboardInterrupt):
        start("killed", RATE, fail_at=3, error=KeyboardInterrupt())
    rest = start("killed", RATE)[1]
    assert rest == undisturbed[2:]


@pytest.mark.slow
def test_a_failed_run_is_a_failed_trial(start):
    content, ran = start("failing", RATE, fail_at=2, error=TrainingError("the loss is nan"))
    assert len(ran) == 4
    assert content["trials"]["failed"] == 1


@pytest.mark.slow
def test_a_run_that_found_no_room_is_no_failed_trial(start):
    with pytest.raises(UserError, match="trial 2: no room; the same command goes on"):
        start("full", RATE, fail_at=2, error=StorageError("no room; the same command goes on"))
    content, ran = start("full", RATE)
    assert len(ran) == 3  # the second and what follows
    assert content["trials"] == {"all": 4, "failed": 0, "feasible": 2}


@pytest.mark.slow
def test_settings_that_do_not_go_together_are_failed_trials(start, caplog):
    sizes = ["training.batch_size=2,4", "training.micro_batch_size=2,4"]
    content, _ = start("together", *sizes, "--at-most", "1", trials=2)
    assert "trial 1 failed: training.micro_batch_size=4 must divide" in caplog.text
    assert content["trials"] == {"all": 2, "failed": 1, "feasible": 1}


@pytest.mark.slow
def test_trials_of_other_numbers_are_not_taken_for_these(start, monkeypatch):
    first = start("numbers", RATE, trials=1)[1]
    monkeypatch.setattr("loku_exp.stages.identity.RUN_FORMAT", 99)  # as where its data has changed
    assert start("numbers", RATE, trials=1)[1] == first


def test_what_a_killed_search_leaves_holds_up_no_other(tmp_path, monkeypatch):
    from loku_exp.search.kept import note_value, study_of

    monkeypatch.chdir(tmp_path)
    place = Path("out")
    place.mkdir()
    (place / "j.journal.lock").symlink_to("out/j.journal")  # Optuna's, which leads nowhere
    study = study_of(place, "j")
    study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    with (place / "j.journal").open("ab") as journal:
        journal.write(b'{"op_code":5,"wor')
    one, two = study_of(place, "j"), study_of(place, "j")
    assert two.trials[0].state == optuna.trial.TrialState.RUNNING
    for study in (one, two):  # both have waited for the same run
        note_value(study, 0, Path("run"), 0.5, -0.1)
    assert [trial.value for trial in study_of(place, "j").trials] == [0.5]


@pytest.mark.parametrize("drawn", [0, 1])
def test_a_trial_whose_drawing_was_killed_gets_the_settings_it_lacks(tmp_path, monkeypatch, drawn):
    from loku_exp.search.kept import study_of

    choices = [optuna.distributions.FloatDistribution(0, 1) for _ in range(2)]
    asked = SimpleNamespace(space=dict(zip("ab", choices, strict=True)), seed=0, trials=2)
    whole = search._batch(study_of(tmp_path, "whole"), asked, 1)
    suggest, seen = optuna.trial.Trial._suggest, []

    def killed(trial, *arguments):
        seen.append(arguments)
        if len(seen) > drawn:
            raise KeyboardInterrupt
        return suggest(trial, *arguments)

    monkeypatch.setattr(optuna.trial.Trial, "_suggest", killed)
    with pytest.raises(KeyboardInterrupt):
        search._batch(study_of(tmp_path, "killed"), asked, 1)
    monkeypatch.undo()
    ((number, settings),) = search._batch(study_of(tmp_path, "killed"), asked, 1)
    assert (number, settings.keys()) == (0, {"a", "b"})
    assert settings["a"] == whole[0][1]["a"]
    assert study_of(tmp_path, "killed").trials[0].params == settings


def test_under_torchrun_it_is_refused(start, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="a search under torchrun"):
        start("torchrun", RATE)


def test_without_a_trial_that_forgets_enough_nothing_is_recommended(start):
    with pytest.raises(UserError, match="no forget_prob is within its limit"):
        start("never", RATE, "--at-most", "-1", trials=1)


def test_where_all_trials_failed_the_limit_is_not_blamed(tmp_path):
    from loku_exp.search.kept import note_failure, study_of
    from loku_exp.search.result import report

    study = study_of(tmp_path, "broken")
    study.ask()
    note_failure(study, 0, "COLLAPSED (retain probability 0.01)")
    with pytest.raises(
        UserError, match=r"1 trials, 1 failed, .* none has a value; trial 1: COLLAPSED"
    ):
        report(study, CRITERION, SUITE, tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=1"], "nothing to search over"),
        (["seed=1,2", "--trials", "0"], "--trials 0: a search needs at least one"),
        (["lora.rnak=range(1,4)"], "lora.rnak: no such key"),
        (["lora.rank=4,900"], "lora.rank=900: lora.rank=900 exceeds layer"),
        (["training.learning_rate=interval(-1,1)"], "training.learning_rate"),
        (["lora.rank=interval(4,32)"], "lora.rank=.* whole number"),
        (["loss=gd,ihl,ihll"], "loss=ihll: no such loss"),
        (["lora.rank=range(9,4)"], r"lora.rank=range\(9,4\): no value lies in it"),
        (["training.learning_rate=interval(1e-2,1e-4)"], "the first end must be the lower one"),
        (["training.learning_rate=tag(log,interval(0,1e-2))"], "lower end must be above 0"),
        (
            ["lora.rank=tag(log,choice(4,8))"],
            r"a logarithmic scale has lora.rank=tag\(log,interval",
        ),
        (["lora.rank=tag(log,range(4,33,4))"], "in steps of 1"),
        (["training.learning_rate=tag(lag,interval(1e-4,1e-2))"], "a search knows no tag 'lag'"),
        (["loss=glob(i*)"], r"loss=glob\(i\*\): name the values instead"),
        (["loss=gd,ihl", "pairs=[{lora.rank: 4}]"], "pairs=...: a search has none"),
        (["loss=gd,ihl", "--at-most", "nan"], "--at-most, --margin: should be numbers"),
        (["loss=gd,ihl", "--at-most", ".3", "--margin", ".1"], "give one of the two"),
        (["loss=gd,ihl", "reference.source=none"], "add --at-most NUMBER"),
    ],
)
def test_mistakes_come_before_the_first_trial(start, tmp_path, arguments, said):
    with pytest.raises(ConfigError, match=said):
        start("wrong", *arguments)
    assert not (tmp_path / "wrong").exists()


def test_values_become_distributions():
    from loku_exp.config import grid
    from loku_exp.search import space as search_space

    (tagged,) = map(search_space.distribution, grid.parse_overrides(["a=tag(log,range(1,33))"]))
    assert tagged == optuna.distributions.IntDistribution(1, 32, log=True)
    texts = ["a=interval(0.1,1)", "a=tag(log,interval(1e-3,1))", "a=range(4,33,4)", "a=x,'y z'"]
    floats, log, ranged, chosen = map(search_space.distribution, grid.parse_overrides(texts))
    uneven = ["a=range(0.5,3,1)", "a=range(8,2,-2)", "a=range(0,2.5,1)", "a=range(1,8,3)"]
    halves, down, mixed, steps = map(search_space.distribution, grid.parse_overrides(uneven))
    assert halves.choices == ("0.5", "1.5", "2.5")
    assert down.choices == ("8", "6", "4")
    assert [float(value) for value in mixed.choices] == [0, 1, 2]
    assert (steps.low, steps.high, steps.step) == (1, 7, 3)
    assert floats == optuna.distributions.FloatDistribution(0.1, 1)
    assert log == optuna.distributions.FloatDistribution(1e-3, 1, log=True)
    assert (ranged.low, ranged.high, ranged.step) == (4, 32, 4)
    assert chosen.choices == ("x", "'y z'")
