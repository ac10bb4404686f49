"""The recipe in numbers: updates, epochs, snapshots, warm-up."""

import pytest
from transformers import TrainerCallback

from loku_exp.config.compose import compose_config
from loku_exp.data.batches import Bucket
from loku_exp.errors import TrainingError
from loku_exp.training.schedule import MOST_EXAMPLES, Plan
from tests.training.small import OFFICIAL, trained


@pytest.mark.parametrize(
    ("rows", "updates", "per_epoch", "snapshots"),
    [
        (40, 6, 1, [1, 2, 3, 4, 5, 6]),
        (200, 31, 6, [6, 12, 18, 24, 30, 31]),
        (400, 62, 12, [12, 24, 36, 48, 60, 62]),
    ],
)
def test_official_updates_and_snapshots(rows, updates, per_epoch, snapshots):
    plan = Plan.of(OFFICIAL, rows)
    assert (plan.updates, plan.updates_per_epoch, plan.batch_size) == (updates, per_epoch, 32)
    assert plan.num_items == 32 * updates
    assert plan.snapshot_steps(OFFICIAL.snapshot_epochs) == snapshots
    assert OFFICIAL.batch_size // OFFICIAL.micro_batch_size == 16


def test_official_fine_tuning_updates():
    finetuning = compose_config(["model=phi"]).model.finetuning
    assert Plan.of(finetuning, 4000).updates == 625
    assert Plan.of(finetuning, 3600).updates == 562
    assert Plan.of(finetuning, 4000).updates_per_epoch == 125


def test_less_than_one_update_raises():
    with pytest.raises(TrainingError, match="less than one update"):
        Plan.of(OFFICIAL, 5)


def test_more_examples_than_an_order_is_kept_of_are_refused():
    most = OFFICIAL.model_copy(update={"epochs": 50_000.0})
    assert Plan.of(most, 400).updates * 32 == MOST_EXAMPLES
    with pytest.raises(
        TrainingError, match=r"epochs=1e\+08 over 400 examples: .* epochs up to 50000"
    ):
        Plan.of(OFFICIAL.model_copy(update={"epochs": 1e8}), 400)


def test_plan_over_the_whole_set():
    recipe = compose_config(["dataset=toy_tdec"]).training
    assert (recipe.batch_size, recipe.micro_batch_size, recipe.epochs) == ("all", 8, 20)
    for rows, micro in ((1, 1), (4, 4), (8, 8), (30, 6), (32, 8), (128, 8), (7, 7), (11, 1)):
        assert Plan.of(recipe, rows) == Plan(20, 1, rows, micro)


def test_bucket_of_a_plan_counts_examples_of_an_update():
    plan = Plan.of(OFFICIAL, 400)
    assert plan.bucket(OFFICIAL) is None
    ours = OFFICIAL.model_copy(update={"bucket": 3})
    assert plan.bucket(ours) == Bucket(3, 32, 2)


def test_warm_up_is_rounded_up_and_not_by_a_rounding_error():
    plan = Plan.of(OFFICIAL.model_copy(update={"batch_size": 2}), 100)
    assert plan.updates_per_epoch == 50
    assert [plan.warmup(epochs) for epochs in (0, 0.01, 0.5, 0.51, 1.1)] == [0, 1, 25, 26, 55]


def test_schedule_is_linear_after_warm_up(tmp_path):
    history, _ = trained(tmp_path)
    rates = [entry["learning_rate"] for entry in history]
    # 6 updates, 2 an epoch, warm-up of one epoch, then down to zero
    assert rates == pytest.approx([0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_constant_schedule_stays_after_a_warm_up_that_loses_no_update(tmp_path):
    history, _ = trained(tmp_path, schedule="constant")
    assert [entry["learning_rate"] for entry in history] == pytest.approx(
        [1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3, 1e-3, 1e-3]
    )


def test_an_only_update_at_a_rate_of_zero_is_refused():
    recipe = compose_config(["model=phi"]).training
    assert Plan.of(recipe.model_copy(update={"epochs": 2.3, "batch_size": 1}), 100).updates == 230
    with pytest.raises(TrainingError, match=r"warmup_epochs=1: the only update .* rate is 0"):
        Plan.of(recipe.model_copy(update={"epochs": 1}), 32)
    assert Plan.of(recipe.model_copy(update={"epochs": 1, "warmup_epochs": 0}), 32).updates == 1
    assert Plan.of(recipe.model_copy(update={"epochs": 1, "schedule": "constant"}), 32).updates == 1
    assert Plan.of(recipe.model_copy(update={"epochs": 2}), 32).updates == 2


@pytest.mark.parametrize(
    ("schedule", "warmup", "highest"),
    [("linear", 1, 0.5), ("linear", 0.5, 1.0), ("linear", 2, 0.25), ("constant", 1, 2 / 3)],
)
def test_a_warm_up_that_takes_the_whole_training_is_said(
    tmp_path, caplog, schedule, warmup, highest
):
    """The rate that was set was never come to, without a word."""
    rates = []

    class Rates(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **_):
            rates.append(optimizer.param_groups[0]["lr"] / 1e-3)

    changes = {"epochs": 1, "schedule": schedule, "warmup_epochs": warmup}
    trained(tmp_path, callbacks=(Rates(),), **changes)
    assert max(rates) == pytest.approx(highest)
    said = [record.message for record in caplog.records if "warmup_epochs" in record.message]
    assert len(said) == (highest < 1)
    assert all(f"comes to {100 * highest:.0f} % of learning_rate" in text for text in said)
