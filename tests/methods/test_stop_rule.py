"""A training that ends when the forget set counts as forgotten, and is gone on with where it was."""

import pytest
import torch

from loku_exp.errors import TrainingError
from loku_exp.evaluation.tdec.stop_check import Check
from loku_exp.methods.planning import plan_of
from loku_exp.runtime.events import Updated, followed_by
from loku_exp.training.snapshots import snapshots_in, step_of
from tests.damage import flip
from tests.methods.tiny import RECIPE, same_weights, unlearned


class StopAt:
    """Says *forgotten* when asked for the so manieth time."""

    thresholds = {"n": 10, "el": 0.1, "ma": 0.3}  # noqa: RUF012

    def __init__(self, epoch: int, disturb=None):
        self.epoch, self.disturb, self.asked = epoch, disturb, 0

    def __call__(self, model) -> Check:
        assert not model.training
        self.asked += 1
        if self.disturb is not None:
            self.disturb(self.asked)
        return Check(self.asked == self.epoch, 0.5 / self.asked, None, "ma")


def never(_):
    raise AssertionError("checked again")


def without_seconds(training: dict) -> dict:
    checks = [{k: v for k, v in c.items() if k != "seconds"} for c in training["checks"]]
    return training | {"checks": checks, "check_seconds": None}


@pytest.mark.parametrize("epoch", [1, 4, 6])
def test_training_ends_after_the_first_epoch_that_has_forgotten(tmp_path, epoch):
    outcome = unlearned(tmp_path, stop=StopAt(epoch))
    training = outcome.report.training
    assert len(training["forget_loss"]) == outcome.step == outcome.epoch == epoch
    assert [moment.step for moment in outcome.curve] == list(range(1, epoch))
    assert training["success"] is True
    assert training["epochs_to_forget"] == epoch
    assert [c["forgotten"] for c in training["checks"]] == [False] * (epoch - 1) + [True]
    assert training["thresholds"] == StopAt.thresholds
    assert training["check_seconds"] == pytest.approx(
        sum(check["seconds"] for check in training["checks"]), abs=1e-3
    )


def test_training_without_success_goes_to_the_end(tmp_path):
    training = unlearned(tmp_path, stop=StopAt(99)).report.training
    assert len(training["forget_loss"]) == 6
    assert (training["success"], training["epochs_to_forget"]) == (False, None)


def test_checks_do_not_disturb_the_training(tmp_path):
    """A model checked along the way is the model that is not."""
    checked = unlearned(tmp_path / "a", stop=StopAt(99))
    random_numbers = StopAt(99, disturb=lambda _: torch.manual_seed(5))
    same_weights(unlearned(tmp_path / "b", stop=random_numbers).subject, checked.subject)
    same_weights(unlearned(tmp_path / "c").subject, checked.subject)


def test_who_follows_is_told_of_every_check(tmp_path):
    told = []
    with followed_by(told.append):
        unlearned(tmp_path, stop=StopAt(3))
    checks = [event for event in told if "check_ma" in event.values]
    assert checks == [Updated(k, {"check_ma": 0.5 / k}) for k in (1, 2, 3)]


def test_a_training_killed_after_its_last_check_is_not_trained_further(tmp_path):
    first = unlearned(tmp_path, stop=StopAt(3))
    stop = StopAt(1, disturb=never)
    again = unlearned(tmp_path, stop=stop)
    same_weights(again.subject, first.subject)
    assert again.report == first.report
    assert stop.asked == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [1, 3])
def test_a_training_killed_in_a_check_checks_again(tmp_path, step):
    """Snapshots hold the checks up to their step: those before a kill are asked no second time."""
    undisturbed = unlearned(tmp_path / "whole", stop=StopAt(4))

    def kill(asked):
        if asked == step:
            raise Killed

    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        unlearned(folder, stop=StopAt(99, disturb=kill))
    assert [step_of(s) for s in snapshots_in(folder / "snapshots")] == list(range(1, step))
    stop = StopAt(4)
    stop.asked = step - 1
    outcome = unlearned(folder, stop=stop)
    same_weights(outcome.subject, undisturbed.subject)
    assert without_seconds(outcome.report.training) == without_seconds(undisturbed.report.training)


def test_where_the_newest_snapshot_is_damaged_its_epoch_is_checked_again(tmp_path):
    first = unlearned(tmp_path, stop=StopAt(3))
    flip(tmp_path / "snapshots/step-00003/trainer_state.json")
    stop = StopAt(3)
    stop.asked = 2
    again = unlearned(tmp_path, stop=stop)
    assert stop.asked == 3
    same_weights(again.subject, first.subject)
    assert without_seconds(again.report.training) == without_seconds(first.report.training)


def test_a_micro_batch_without_a_retain_example_is_refused():
    recipe = RECIPE.model_copy(update={"retain_batch_size": 2, "micro_batch_size": 1})
    with pytest.raises(TrainingError, match=r"training\.retain_batch_size=2 leaves some of the 4"):
        plan_of(recipe, 4)
