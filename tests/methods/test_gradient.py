"""Unlearning by gradient steps, from a start that is kept: gone on with, damaged, shipped; its subjects."""

import dataclasses
import hashlib
import logging
import re

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from loku_exp.data.records import Example, Records, Sequence
from loku_exp.errors import TrainingError
from loku_exp.losses import builtin
from loku_exp.losses.scores import LossTerms
from loku_exp.methods import shipping
from loku_exp.methods.planning import plan_of, problems, stream_of
from loku_exp.runtime.cache import damage
from loku_exp.runtime.chosen import Chosen
from loku_exp.training import trainer
from tests.damage import flip
from tests.helpers import tiny_model
from tests.methods.tiny import (
    ADAPTER,
    FILA,
    IHL,
    RECIPE,
    VANILLA,
    logits,
    records,
    same_weights,
    target,
    unlearned,
    weights,
    workspace,
)

WAYS = {
    "vanilla": {},
    "fila": {"init": FILA},
    "full": {"adapter": None, "init": None},
}


@pytest.fixture(scope="module", params=WAYS)
def way(request, tmp_path_factory):
    """Arguments of an unlearning, its folder and its outcome; nothing in the folder is changed."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return WAYS[request.param], folder, unlearned(folder, **WAYS[request.param])


def test_what_the_adapter_leaves_out_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    unlearned(tmp_path / "run")
    said = [text for text in caplog.messages if text.startswith("the adapter is on ")]
    assert len(said) == 1
    assert re.match(r"the adapter is on \d+ % of the weights in matrices; not on .*k_proj", said[0])


def test_an_outcome_is_its_last_snapshot_and_the_way_there(way):
    _, folder, outcome = way
    assert (outcome.step, outcome.epoch) == (6, 6.0)
    assert [(m.step, m.epoch) for m in outcome.curve] == [(k, float(k)) for k in range(1, 6)]
    subjects = [*(moment.subject for moment in outcome.curve), outcome.subject]
    assert len({subject.identity for subject in subjects}) == 6
    for subject in subjects:
        assert (subject.name, subject.derived_from, subject.reference) == (
            "unlearned", "target", "reference"
        )  # fmt: skip
        assert subject.of_run
        assert not subject.reads_prompts
    assert outcome.subject.path == str(folder / "snapshots/step-00006")
    assert not torch.equal(logits(outcome.subject.load()), logits(tiny_model()))


def test_a_subject_is_loaded_anew_and_is_the_callers_own(way):
    subject = way[2].subject
    model = subject.load()
    assert not model.training
    expected = logits(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(logits(subject.load()), expected)


def test_nothing_is_trained_where_all_is_there(way, monkeypatch):
    arguments, folder, outcome = way
    monkeypatch.setattr(trainer.ObjectiveTrainer, "training_step", pytest.fail)
    again = unlearned(folder, **arguments)
    assert again.subject.identity == outcome.subject.identity
    assert again.report == outcome.report
    same_weights(again.subject, outcome.subject)


def test_the_start_is_kept_with_its_check_sum(way):
    arguments, folder, _ = way
    if "adapter" in arguments:
        assert not (folder / "init.safetensors").exists()
        return
    content = (folder / "init.safetensors").read_bytes()
    expected = f"{hashlib.sha256(content).hexdigest()}  init.safetensors\n"  # for `sha256sum -c`
    assert (folder / "init.sha256").read_text() == expected


@pytest.fixture(scope="module")
def fila(tmp_path_factory):
    return unlearned(tmp_path_factory.mktemp("fila") / "run", init=FILA)


def killed(folder, **arguments):
    """Unlearn up to the third update's snapshot."""

    class Killed(BaseException):
        pass

    step = trainer.ObjectiveTrainer.training_step

    def training_step(self, *rest, **options):
        if self.state.global_step == 3:
            raise Killed
        return step(self, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.ObjectiveTrainer, "training_step", training_step)
        with pytest.raises(Killed):
            unlearned(folder, **arguments)


@pytest.mark.parametrize("harm", ["nothing", "newest", "start", "sum"])
def test_a_killed_one_goes_on_to_the_same_model(fila, tmp_path, harm, caplog):
    folder = tmp_path / "run"
    killed(folder, init=FILA)
    if harm == "newest":
        flip(folder / "snapshots/step-00003/adapter_model.safetensors")
    elif harm == "start":
        flip(folder / "init.safetensors")
    elif harm == "sum":
        (folder / "init.sha256").write_text("")
    outcome = unlearned(folder, init=FILA)
    same_weights(outcome.subject, fila.subject)
    assert outcome.report.training["forget_loss"] == fila.report.training["forget_loss"]
    aside = sorted(path.name.rpartition("-")[0] for path in folder.rglob("damaged-*"))
    of_start = ["damaged-init.safetensors", "damaged-snapshots"]
    expected = {"nothing": [], "newest": ["damaged-step-00003"], "start": of_start, "sum": of_start}
    assert aside == expected[harm]
    if harm == "start":
        assert "init.safetensors is not what was written, and snapshots mean nothing" in caplog.text


def test_a_kill_before_the_check_sum_sets_nothing_aside(tmp_path, fila):
    folder = tmp_path / "run"
    killed(folder, init=FILA)
    for path in (folder / "snapshots").iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (folder / "snapshots").rmdir()
    (folder / "init.sha256").unlink()
    same_weights(unlearned(folder, init=FILA).subject, fila.subject)
    assert not list(folder.rglob("damaged-*"))


def test_a_damaged_snapshot_along_the_way_is_no_point_of_the_curve(tmp_path, caplog):
    folder = tmp_path / "run"
    first = unlearned(folder)
    flip(folder / "snapshots/step-00002/adapter_model.safetensors")
    again = unlearned(folder)
    assert [moment.step for moment in again.curve] == [1, 3, 4, 5]
    assert again.subject.identity == first.subject.identity
    assert "step-00002 is damaged" in caplog.text


def test_the_target_is_not_touched(tmp_path):
    """Its weights are changed by an init; a subject's load gives a model of the caller's own."""
    subject, loaded = target(), []

    def load(dtype=None):
        loaded.append(subject.load(dtype))
        return loaded[-1]

    outcome = unlearned(tmp_path / "run", target=dataclasses.replace(subject, load=load), init=FILA)
    assert len(loaded) == 1
    outcome.subject.load()
    assert len(loaded) == 2
    torch.testing.assert_close(logits(subject.load()), logits(tiny_model()), rtol=0, atol=0)


def test_all_weights_are_evaluated_as_they_are_shipped(tmp_path):
    """Trained in fp32, they are rounded to the model's precision unless another is asked for."""
    outcome = unlearned(tmp_path / "run", dtype="bfloat16", adapter=None, init=None)
    kept = load_file(tmp_path / "run/snapshots/step-00006/model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    loaded = weights(outcome.subject)
    assert {tensor.dtype for tensor in loaded.values()} == {torch.bfloat16}
    for name, tensor in kept.items():
        assert torch.equal(loaded[name], tensor.to(torch.bfloat16)), name
    whole = {name: p for name, p in outcome.subject.load(dtype="float32").named_parameters()}
    assert all(torch.equal(whole[name], tensor) for name, tensor in kept.items())
    assert outcome.ship() == 0
    shipped = load_file(tmp_path / "run/model/model.safetensors")
    assert {tensor.dtype for tensor in shipped.values()} == {torch.bfloat16}


# -- what is shipped -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["vanilla", "fila"])
def test_the_adapter_gives_the_models_logits_on_the_untouched_target(tmp_path, name, dtype):
    outcome = unlearned(tmp_path / "run", dtype=dtype, **WAYS[name])
    difference = outcome.ship()
    base = tiny_model(dtype=getattr(torch, dtype))
    plain = PeftModel.from_pretrained(base, str(tmp_path / "run/adapter")).eval()
    expected = logits(outcome.subject.load())
    found = float((logits(plain) - expected).abs().max())
    assert difference == pytest.approx(found, rel=1e-3, abs=1e-6)
    assert difference < (1e-4 if dtype == "float32" else 0.1)
    assert damage(tmp_path / "run/adapter") is None


def test_it_is_written_once_and_again_where_it_is_damaged(tmp_path):
    outcome = unlearned(tmp_path / "run")
    outcome.ship()
    file = tmp_path / "run/adapter/adapter_model.safetensors"
    stamp, content = file.stat().st_mtime_ns, file.read_bytes()
    outcome.ship()
    assert file.stat().st_mtime_ns == stamp
    flip(file)
    outcome.ship()
    assert file.read_bytes() == content
    assert len(list((tmp_path / "run").glob("damaged-adapter-*"))) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_that_is_not_folded_is_not_shipped(tmp_path, monkeypatch, dtype):
    def unfolded(model, factors, adapter, folder):
        model.save_pretrained(str(folder))

    monkeypatch.setattr(shipping, "fold", unfolded)
    outcome = unlearned(tmp_path / "run", dtype=dtype, init=FILA)
    with pytest.raises(TrainingError, match="does not give the logits of the model in memory"):
        outcome.ship()


# -- what a loss asks for ------------------------------------------------------------------------


def apart(forget, paraphrase):
    """Make the two texts of a row unlike: their sums are compared row by row."""
    sums = [texts.sequence_sums(texts.logprobs()) for texts in (forget, paraphrase)]
    return LossTerms((sums[0] - sums[1]).mean())


def rephrased(rows: int = 4) -> Records:
    """Records whose forget rows have an alternative: the same text, its last token twice."""
    plain = records(rows)

    def longer(row: Example) -> Example:
        ids = (*row.answer.ids, row.answer.ids[-1])
        return dataclasses.replace(row, alternatives={"paraphrase": (Sequence(ids, ids),)})

    return dataclasses.replace(plain, forget=[longer(row) for row in plain.forget])


@pytest.mark.parametrize("bucket", [None, 2])
def test_alternatives_stand_beside_their_forget_row(bucket):
    recipe = RECIPE.model_copy(
        update={"batch_size": 4, "micro_batch_size": 2, "bucket": bucket, "reduction": "micro_batch",
                "retain_batch_size": None}
    )  # fmt: skip
    given = rephrased(8)
    plan = plan_of(recipe, 8)
    stream = stream_of(given, ("retain", "paraphrase", "forget"), recipe, plan, 0)
    assert list(stream.sequences) == [
        "forget",
        "paraphrase",
        "retain",
    ]  # the forget set sets epochs
    for k in range(len(stream)):
        (forget,), _ = stream[k]["forget"]
        (other,), _ = stream[k]["paraphrase"]
        assert other.ids[:-1] == forget.ids


def test_a_loss_without_the_forget_set_has_its_alternatives_row_by_row_all_the_same():
    """An epoch is a pass over the forget set, though the loss does not ask for it."""
    recipe = RECIPE.model_copy(update={"batch_size": 4, "micro_batch_size": 2, "epochs": 2,
                                       "reduction": "micro_batch", "retain_batch_size": None})  # fmt: skip
    given = rephrased(8)
    given = dataclasses.replace(given, retain=given.retain[:3])
    stream = stream_of(given, ("paraphrase", "retain"), recipe, plan_of(recipe, 8), 0)
    seen = [stream[k]["paraphrase"][0][0].ids for k in range(len(stream))]
    wanted = sorted(row.alternatives["paraphrase"][0].ids for row in given.forget)
    assert sorted(seen) == sorted([*wanted, *wanted])


def test_a_loss_may_ask_for_alternatives(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "ga", apart)
    loss = Chosen("apart", "loku_exp.losses.builtin.ga", ("forget", "paraphrase"), {})
    assert problems(rephrased(), loss, VANILLA, RECIPE, 61, 2) == []
    outcome = unlearned(tmp_path / "run", loss=loss, records=rephrased())
    losses = outcome.report.training["forget_loss"]
    assert losses[-1] < losses[0]
    assert outcome.report.protocol["examples_per_update"] == [4, 0]


def on_factors(forget):
    on_b = sum(factors.b.square().sum() for factors in forget.factors.values())
    return LossTerms(-forget.logprobs().mean(), others={"on_b": on_b})


def test_what_would_end_it_is_found_before_it_begins():
    def found(loss=IHL, init=VANILLA, given=None, **changes):
        recipe = RECIPE.model_copy(update=changes)
        return problems(given or records(), loss, init, recipe, 61, 2)

    assert found() == []
    wants = Chosen("mine", "loku_exp.losses.builtin.ga", ("forget", "idk"), {})
    assert found(wants) == [
        "loss=mine: it wants the batch 'idk', and this dataset has forget, retain; take another "
        "loss or a dataset that has it (in a loss of your own a knob must be keyword-only, behind a *)"
    ]
    without = dataclasses.replace(records(), retain=[])
    (said,) = found(given=without)
    assert said.startswith(
        "loss=ihl: it wants the batch 'retain', and this dataset has 0 such rows"
    )
    on_factors = Chosen("on_factors", "tests.methods.test_gradient.on_factors", ("forget",))
    given = (on_factors, VANILLA, RECIPE, 61, 2)
    assert problems(records(), *given, ADAPTER) == []
    (said,) = problems(records(), *given)  # all weights are trained
    assert "its term 'on_b' is int" in said
    many = Chosen("fila", FILA.target, FILA.inputs, {"num_retain": 7})
    (said,) = found(init=many)
    assert "num_retain" in said
    (said,) = found(epochs=0.1)
    assert said.startswith("training.epochs=0.1 over 4 examples is less than one update")
    (said,) = found(retain_batch_size=1, micro_batch_size=1)
    assert said.startswith("training.retain_batch_size=1 leaves some of the 4")


def test_importances_of_another_precision_or_attention_are_measured_anew(tmp_path):
    """They differ in their last bits, so what a run gets must not hang on which was first."""
    plain = workspace(tmp_path / "plain")
    machines = [
        plain.machine,
        dataclasses.replace(plain.machine, attention="sdpa"),
        dataclasses.replace(
            plain.machine, precision=plain.machine.precision | {"model": "bfloat16"}
        ),
    ]
    for number, machine in enumerate([*machines, *machines]):
        place = dataclasses.replace(workspace(tmp_path / f"run{number}"), machine=machine)
        unlearned(place.folder, init=FILA, workspace=place)
    assert len([path for path in (tmp_path / "cache/fisher").iterdir() if path.is_dir()]) == 3
