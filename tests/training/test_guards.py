"""What stands around a training: finite updates, gradients that reach, device, the model's own forward."""

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from loku_exp.errors import TrainingError
from loku_exp.inits.vanilla import vanilla
from loku_exp.losses.builtin import ihl
from loku_exp.losses.scores import LossTerms
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.training.guards import FiniteUpdates, on_device_of_model
from tests.helpers import tiny_model
from tests.training.small import trained, weights


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(tmp_path):
    def infinite(forget, retain):
        terms = ihl(forget, retain)
        return type(terms)(terms.forget / 0, terms.retain)

    model = tiny_model()
    before = weights(model).clone()
    with pytest.raises(
        TrainingError, match=r"the loss is inf at update 1; nothing was trained yet"
    ):
        trained(tmp_path, loss=infinite, model=model)
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("unlearns", [True, False])
def test_a_bounded_loss_is_named_where_one_can_be_taken(unlearns):
    """A fine-tuning of the target was told to take loss=ihl, which it does not read."""
    model, state = tiny_model(), SimpleNamespace(global_step=0)
    guard = FiniteUpdates([torch.tensor(float("nan"))], unlearns)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(TrainingError, match=r"Lower the learning rate") as error:
        guard.on_pre_optimizer_step(None, state, None, model=model)
    assert ("loss=ihl" in str(error.value)) == unlearns


def test_gradient_that_is_not_finite_stops_before_the_weights_move(tmp_path):
    def root_of_zero(forget, retain):
        terms = ihl(forget, retain)
        zero = 0 * forget.logprobs().sum()
        return type(terms)(terms.forget + zero.abs().sqrt(), terms.retain)

    model = tiny_model()
    before = weights(model).clone()
    with pytest.raises(TrainingError, match=r"gradient is not finite at update 1 though the loss"):
        trained(tmp_path, loss=root_of_zero, model=model)
    assert torch.equal(weights(model), before)


class PutBack(TrainerCallback):
    """Undoes every update, as an engine does whose updates go to a copy of the weights."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.kept = {name: value.clone() for name, value in model.state_dict().items()}

    def on_step_end(self, args, state, control, model=None, **_):
        model.load_state_dict(self.kept)


def test_updates_that_change_no_weight_are_an_error(tmp_path):
    with pytest.raises(TrainingError, match=r"6 updates with gradients changed no weight"):
        trained(tmp_path, callbacks=(PutBack(),))


def test_trainer_is_pinned_to_the_device_of_the_model(tmp_path):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True)
    arguments._n_gpu = 2  # two visible accelerators: the Trainer would split batches over them
    pinned = on_device_of_model(arguments, torch.device("meta"))
    assert (pinned.n_gpu, pinned.device.type) == (1, "meta")
    assert pinned.train_batch_size == pinned.per_device_train_batch_size


def test_model_is_left_without_autocast(tmp_path):
    _, model = trained(tmp_path, autocast="bfloat16")
    again = tiny_model()
    again.load_state_dict(model.state_dict())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)


def adapted():
    """A tiny model with an adapter on every linear layer."""
    model, adapter = tiny_model(), Adapter(2, 4, 0.0, ["all-linear"])
    factors = {f.name: f for f in vanilla(adapter.layers(model, seed=0))}
    return attach(model, factors, adapter)[0]


def first_block_alone(reaches_all: bool):
    """A loss on what the first of two blocks gives: nothing behind it gets a gradient."""

    def loss(forget, retain):
        return LossTerms(forget.hidden(1).square().mean(), reaches_all=reaches_all)

    return loss


def test_a_loss_that_leaves_layers_out_says_so(tmp_path):
    with pytest.raises(TrainingError, match=r"12 of 24 adapter matrices got no gradient .*h\.1\."):
        trained(tmp_path, loss=first_block_alone(True), model=adapted())
    model = adapted()
    trained(tmp_path, loss=first_block_alone(False), model=model, warmup_epochs=0)
    moved = {n for n, p in model.named_parameters() if "lora_B" in n and p.any()}
    assert len(moved) == 6
    assert all(".h.0." in name for name in moved)


def test_of_a_pair_either_factor_may_begin_at_zero(tmp_path):
    """B's gradient is exactly zero where A is, as A's is where B is."""
    model = adapted()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.zero_()
            elif "lora_B" in name:
                parameter.normal_(std=0.1)
    history, _ = trained(tmp_path, model=model)
    assert history


@pytest.mark.parametrize("reaches_all", [True, False])
def test_a_loss_that_reaches_nothing_is_refused_whatever_it_says(tmp_path, reaches_all):
    def nothing(forget, retain):
        return LossTerms(0 * forget.logprobs().sum(), reaches_all=reaches_all)

    with pytest.raises(TrainingError, match="24 of 24 adapter matrices got no gradient"):
        trained(tmp_path, loss=nothing, model=adapted())
    with pytest.raises(TrainingError, match="no weight got a gradient at the first update"):
        trained(tmp_path, loss=nothing)  # went on to the end
