"""Attacks: on all models of a run at once, or added to a finished run without unlearning again."""

import pytest

from loku_exp.attack import attack
from loku_exp.attack import main as program
from loku_exp.config.saved import saved, with_attacks
from loku_exp.errors import HeldError, UserError
from loku_exp.results import files as results
from loku_exp.results.folder import claimed
from loku_exp.runtime.finished import read_mark
from loku_exp.startup import add_to
from tests.helpers import TINY_TDEC
from tests.runs.running import same_numbers, start

SHORT = ["attacks.relearn.steps=2", "attacks.relearn.rows=4", "attacks.relearn.batch_size=4"]
ATTACKED = {"reference+relearn", "target+relearn", "unlearned+relearn"}


@pytest.fixture(scope="module")
def at_once(tmp_path_factory, shared_cache):
    return start(tmp_path_factory.mktemp("at once"), shared_cache, "attacks=[relearn]", *SHORT)


def test_every_model_is_attacked_alike(at_once, quick):
    record, plain = results.read(at_once), results.read(quick)
    assert record.models.keys() - plain.models.keys() == ATTACKED
    for name in ("target", "unlearned", "reference"):
        assert record.models[name].metrics == plain.models[name].metrics
        attacked = record.models[f"{name}+relearn"]
        assert (attacked.role, attacked.derived_from) == ("attacked", name)
        assert attacked.metrics["forget_prob"] > record.models[name].metrics["forget_prob"]
    assert record.models["unlearned+relearn"].reference == "reference+relearn"
    models = {name: model.metrics["forget_prob"] for name, model in record.models.items()}
    gap = models["unlearned+relearn"] - models["reference+relearn"]
    assert record.models["unlearned+relearn"].metrics["forget_prob_excess"] == pytest.approx(
        gap / (models["target"] - models["reference"])
    )
    table = (at_once / "results.md").read_text()
    assert "forget set, probability: excess over the reference" in table
    assert "no control" not in table


@pytest.mark.slow
def test_weights_are_rounded_without_a_reference_and_it_is_said(begin):
    record = results.read(begin("attacks=[int8,int4]", "reference.source=none"))
    assert {name for name in record.models if "+" in name} == {
        f"{of}+{attack}" for of in ("target", "unlearned") for attack in ("int8", "int4")
    }
    lost = {
        attack: abs(
            record.models[f"target+{attack}"].metrics["retain_prob"]
            - record.models["target"].metrics["retain_prob"]
        )
        for attack in ("int8", "int4")
    }
    assert 0 < lost["int8"] < lost["int4"]
    assert not any(name.endswith("excess") for name in record.models["unlearned+int4"].metrics)
    assert any("without a reference the attacks have no control" in note for note in record.notes)


def test_added_to_a_finished_run_the_numbers_are_the_same(
    at_once, copied, begin, asked, shared_cache
):
    before = {p: p.stat().st_mtime_ns for p in copied.glob("snapshots/**/*") if p.is_file()}
    assert attack(copied, ["relearn", *SHORT, f"cache_dir={shared_cache}"]) == copied
    assert not {"target", "unlearned", "reference"} & {k for k, n in asked.requests.items() if n}
    assert before == {p: p.stat().st_mtime_ns for p in before}
    ours, theirs = results.read(copied), results.read(at_once)
    assert {n: m.metrics for n, m in ours.models.items()} == {
        n: m.metrics for n, m in theirs.models.items()
    }
    assert (copied / "examples.jsonl").read_text() == (at_once / "examples.jsonl").read_text()


@pytest.mark.slow
def test_ended_between_its_last_files_the_same_command_closes_the_run_again(
    at_once, copied, shared_cache, monkeypatch
):
    """Its table was there already: the mark would have stayed without sums, and half files beside it."""
    arguments = ["relearn", *SHORT, f"cache_dir={shared_cache}"]

    def ended(*_):
        (copied / ".1234.curve.png").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("loku_exp.run.draw_curve", ended)
        with pytest.raises(KeyboardInterrupt):
            attack(copied, arguments)
    assert "target+relearn" in results.read(copied).models
    assert read_mark(copied)["open"]
    assert attack(copied, arguments) == copied
    mark = read_mark(copied)
    assert not mark["open"]
    assert mark["sha256"].keys() == read_mark(at_once)["sha256"].keys()
    assert not list(copied.glob(".1234.*"))


def test_added_again_it_is_shown_and_with_other_settings_refused(at_once, asked, shared_cache):
    place = f"cache_dir={shared_cache}"
    assert attack(at_once, ["relearn", *SHORT, place]) == at_once
    assert asked.requests == {}
    with pytest.raises(UserError, match=r"attacks\.relearn: this run has it with other settings"):
        attack(at_once, ["relearn", "attacks.relearn.steps=3", place])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "relearn"], "nowhere is no folder of a run"),
        (["{run}", "relern"], "did you mean 'relearn'?"),
        (["{run}", "relearn", "lora.rank=4"], "lora.rank: only attacks are added to a run"),
        (["{run}", "relearn", "attacks.relearn.rows=999"], "attacks.relearn.rows=999: the forget set has"),
        (["{run}", "attacks.relearn.rows=3"], "no attack named"),
    ],
)  # fmt: skip
def test_mistakes_of_the_program(copied, arguments, said, capsys, shared_cache, monkeypatch):
    before = (copied / "metrics.json").read_bytes()
    given = [text.replace("{run}", str(copied)) for text in arguments]
    with pytest.raises(SystemExit) as ended:
        program([*given, f"cache_dir={shared_cache}"])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert (copied / "metrics.json").read_bytes() == before


@pytest.mark.slow
def test_attacks_on_prompts_change_the_forget_set_alone(begin, quick):
    """Told the answer a model repeats it, and the best of several answers is no worse than a greedy one."""
    record = results.read(begin("attacks=[context_given,leak]", "attacks.leak.samples=4"))
    plain = results.read(quick).models
    for of in ("target", "unlearned", "reference"):
        told, leaked = (record.models[f"{of}+{name}"].metrics for name in ("context_given", "leak"))
        for name, value in plain[of].metrics.items():
            if not name.startswith("forget"):
                assert told[name] == pytest.approx(value, abs=1e-4), name
                assert leaked[name] == pytest.approx(value, abs=1e-4), name
        assert leaked["forget_prob"] == pytest.approx(plain[of].metrics["forget_prob"], abs=1e-5)
        assert told["forget_prob"] != pytest.approx(plain[of].metrics["forget_prob"], abs=1e-3)
    assert record.models["unlearned+leak"].metrics.keys() & {"forget_rouge_excess"}


@pytest.mark.slow
def test_an_extraction_run_is_attacked_too(begin):
    folder = begin("attacks=[relearn]", *SHORT, "evaluation.curve=none", base=TINY_TDEC)
    record = results.read(folder)
    assert record.models.keys() >= ATTACKED
    assert record.judgement == record.models["unlearned"].judgement


@pytest.mark.slow
def test_a_method_that_trains_nothing_is_run_shown_and_attacked(begin, asked):
    """Wrapped models go through everything: the suite, an attack on what they wrap, reloading."""
    few = ["method=prompt_corruption", "attacks=[relearn]", *SHORT, "evaluation.rows=6"]
    folder = begin(*few)
    record = results.read(folder)
    assert record.models.keys() >= ATTACKED
    assert record.protocol["corruption"]["forget_flagged"] > 0.5
    assert "-prompt_corruption-" in folder.name
    assert record.init is None
    target, unlearned = (record.models[name].metrics for name in ("target", "unlearned"))
    assert unlearned["forget_prob"] < target["forget_prob"]
    assert unlearned["retain_prob"] == pytest.approx(target["retain_prob"], rel=0.3)
    assert (folder / "method/profile.safetensors").is_file()
    again = begin(*few, "force=true")
    same_numbers(folder, again)


@pytest.mark.slow
def test_two_programs_that_attack_one_run_leave_both_attacks(copied, shared_cache):
    """The second one read the run's configuration before the first had added to it."""
    place = f"cache_dir={shared_cache}"
    second = with_attacks(copied, ["int8", place], None)
    with claimed(copied), pytest.raises(HeldError, match="another process is working on this run"):
        attack(copied, ["int4", place])
    assert attack(copied, ["int4", place]) == add_to(copied, second) == copied
    added = {name.partition("+")[2] for name in results.read(copied).models} - {""}
    assert added == set(saved(copied)["attacks"]) == {"int4", "int8"}
