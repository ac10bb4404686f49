"""The Trainer's numbers: by hand, and the same however an update is split, sorted or computed."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainingArguments

from loku_exp.data.batches import Batch, Stream, collate, pad
from loku_exp.inits.interface import Factors
from loku_exp.losses.builtin import gd, ihl
from loku_exp.losses.scores import LossTerms
from loku_exp.losses.terms import cross_entropy, inverted_hinge
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.methods.planning import stream_of
from loku_exp.models.load import linear_layers
from loku_exp.training.schedule import Plan
from loku_exp.training.trainer import Objective, ObjectiveTrainer
from tests.helpers import tiny_model, tiny_records
from tests.training.small import LOSS, OFFICIAL, SETS, trained, weights


def test_logged_parts_add_up_to_the_loss(tmp_path):
    history, _ = trained(tmp_path)
    for entry in history:
        assert entry["forget_loss"] + entry["retain_loss"] == pytest.approx(entry["loss"], rel=1e-4)
        assert entry["grad_norm"] > 0
    assert history[-1]["total_flops"] > 0


def test_further_terms_are_added_and_logged_by_name(tmp_path):
    def regularised(forget, retain):
        terms = ihl(forget, retain)
        others = {"size": 0.1 * forget.hidden(1).square().mean()}
        return LossTerms(terms.forget, terms.retain, 2.0, others)

    history, _ = trained(tmp_path, loss=regularised)
    for entry in history:
        total = entry["forget_loss"] + 2 * entry["retain_loss"] + entry["size_loss"]
        assert total == pytest.approx(entry["loss"], rel=1e-4)
        assert entry["size_loss"] > 0


def test_update_reduction_does_not_depend_on_the_split(tmp_path):
    whole = weights(trained(tmp_path, reduction="update", micro_batch_size=4)[1])
    for micro in (1, 2):
        split = weights(trained(tmp_path, reduction="update", micro_batch_size=micro)[1])
        torch.testing.assert_close(split, whole, rtol=1e-4, atol=2e-5)
    official = weights(trained(tmp_path, reduction="micro_batch", micro_batch_size=1)[1])
    assert (official - whole).abs().max() > 1e-4  # the official reduction does depend on it


def test_bucketing_changes_no_number_at_micro_batch_one(tmp_path):
    same = {"micro_batch_size": 1, "epochs": 1}
    expected = weights(trained(tmp_path, **same)[1])
    assert torch.equal(weights(trained(tmp_path, bucket=2, **same)[1]), expected)


def test_bucketing_inside_an_update_changes_no_token_mean(tmp_path):
    same = {"reduction": "update", "epochs": 2}
    expected = weights(trained(tmp_path, **same)[1])
    actual = weights(trained(tmp_path, bucket=1, **same)[1])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-5)
    several = weights(trained(tmp_path, bucket=2, **same)[1])
    assert (several - expected).abs().max() > 1e-4  # other examples share an update


@pytest.mark.parametrize("loss", [ihl, gd])
def test_two_forwards_equal_one(loss):
    """Forget and retain through the model together, by plain logits of the joint batch."""
    forget, retain = SETS["forget"][:3], SETS["retain"][4:7]
    model, batch = tiny_model(), {"forget": pad(forget), "retain": pad(retain)}
    model.lm_head.weight.requires_grad_(False)
    Objective(loss, LOSS)(model, batch).total.backward()
    twice = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    both = pad(forget + retain)
    logits = model(input_ids=both["input_ids"], attention_mask=both["attention_mask"]).logits
    rows, columns = both["predicting"]
    of, labels = logits[rows, columns], both["labels"][rows, columns + 1]
    terms = [inverted_hinge, cross_entropy] if loss is ihl else [cross_entropy, cross_entropy]
    first, second = (
        term.value(of[part], labels[part])
        for term, part in zip(terms, (rows < 3, rows >= 3), strict=True)
    )
    ((1 if loss is ihl else -1) * first.mean() + second.mean()).backward()
    assert len(twice) > 20
    for name, gradient in twice.items():
        once = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(gradient, once, rtol=1e-4, atol=1e-7)


class Waits(TorchDispatchMode):
    """Lists the operations that make the host wait for an accelerator."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.NAMES or masked:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_a_micro_batch_never_waits_for_the_device(tmp_path):
    """Waits cost an accelerator its queue. An update may ask once, a micro-batch never."""
    model, batch = tiny_model(), collate([Stream(SETS, 2, 0)[k] for k in range(2)])
    trainer = ObjectiveTrainer(
        Objective(ihl, LOSS), model=model, args=TrainingArguments(str(tmp_path), use_cpu=True)
    )
    model.lm_head.weight.requires_grad_(False)
    with Waits() as waits:
        for _ in range(3):
            trainer.compute_loss(model, batch).backward()
            trainer.floating_point_ops(batch)
    assert waits.seen == []
    with Waits() as waits:
        trainer.callback_handler.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)
    assert len(waits.seen) <= 2, waits.seen
    with Waits() as waits:
        _labelled_by_mask(batch)
    assert waits.seen, "the list sees nothing"


def _labelled_by_mask(batch: Batch) -> None:
    labels = batch["forget"]["labels"]
    assert labels[labels != -100].numel()


def test_gradient_checkpointing_changes_nothing(tmp_path):
    expected = weights(trained(tmp_path)[1])
    actual = weights(trained(tmp_path, gradient_checkpointing=True)[1])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_plain_head_trains_the_same(tmp_path):
    expected = weights(trained(tmp_path)[1])
    actual = weights(trained(tmp_path, plain=True)[1])
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=2e-5)


def test_one_update_equals_adamw_by_hand(tmp_path):
    """The first moving update, written out with torch.optim.AdamW on the mean of micro-batch losses."""
    from loku_exp.losses.scores import Scores

    recipe = {"epochs": 1, "batch_size": 4, "warmup_epochs": 0, "schedule": "constant"}
    _, model = trained(tmp_path, **recipe, max_grad_norm=None, weight_decay=0.0)
    by_hand, stream = tiny_model(), Stream(SETS, 8, seed=0)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3, weight_decay=0.0)
    for update in range(2):
        optimizer.zero_grad()
        for first in (4 * update, 4 * update + 2):
            batch = collate([stream[first], stream[first + 1]])
            scores = {name: Scores(by_hand, batch[name]) for name in ("forget", "retain")}
            (ihl(**scores).total / 2).backward()
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(by_hand), rtol=1e-5, atol=1e-6)


def test_without_a_limit_no_gradient_is_scaled_and_its_norm_is_logged(tmp_path):
    free, model = trained(tmp_path, max_grad_norm=None)
    far, same = trained(tmp_path, max_grad_norm=1e9)
    assert torch.equal(weights(model), weights(same))
    assert [e["grad_norm"] for e in free] == [e["grad_norm"] for e in far]
    assert max(e["grad_norm"] for e in free) > 0.01
    _, clipped = trained(tmp_path, max_grad_norm=1e-4)
    assert not torch.equal(weights(model), weights(clipped))


@pytest.mark.parametrize("dropout", [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapter_leaves_casting_to_autocast_and_trains_bitwise_the_same(
    tmp_path, monkeypatch, checkpointing, dropout
):
    def fitted() -> tuple[torch.Tensor, int]:
        layers = linear_layers(model := tiny_model(dtype=torch.bfloat16))
        generator = torch.Generator().manual_seed(0)
        factors = {
            name: Factors(
                name,
                torch.randn(2, layer.weight.shape[1], generator=generator),
                torch.randn(len(layer.weight), 2, generator=generator) / 100,
            )
            for name, layer in layers.items()
        }
        adapted, _ = attach(model, factors, Adapter(2, 4, dropout, ["all-linear"]))
        with Casts() as casts:
            trained(
                tmp_path,
                model=adapted,
                autocast="bfloat16",
                gradient_checkpointing=checkpointing,
            )
        moved = [p.detach().flatten() for p in adapted.parameters() if p.requires_grad]
        return torch.cat(moved), casts.seen

    ours, fewer = fitted()
    monkeypatch.setattr(
        "loku_exp.training.trainer.disable_input_dtype_casting", lambda *_, **__: nullcontext()
    )
    theirs, more = fitted()
    assert torch.equal(ours, theirs)
    assert fewer == more if dropout else fewer < 0.8 * more


class Casts(TorchDispatchMode):
    """Counts the conversions of tensors."""

    seen = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.seen += operation is torch.ops.aten._to_copy.default
        return operation(*args, **(kwargs or {}))


def test_the_forget_set_sets_the_epochs_whatever_a_loss_names_first():
    records = tiny_records()
    records = dataclasses.replace(records, retain=records.retain[:2])
    recipe = OFFICIAL.model_copy(update={"batch_size": 2, "micro_batch_size": 2, "epochs": 3})
    plan = Plan.of(recipe, len(records.forget))
    streams = [stream_of(records, names, recipe, plan, 0) for names in (LOSS, LOSS[::-1])]
    assert streams[0].order == streams[1].order
    assert sorted(row for item in streams[1].order["forget"][:6] for row in item) == list(range(6))
