"""FLOP formulas against torch's counter around the real passes, and by hand.

The counter knows mm, addmm, bmm and baddbmm, not their in-place forms, nor products with a vector, nor
QR and SVD. A step and the Fisher pass use none it does not know and agree with it to the last operation.
Two differences are left, each computed where it occurs: QR and SVD of the low-rank step, which the
formula has and the counter has not; and the last product of a checkpointed block, which the formula
counts and torch leaves out of the recomputation.
"""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from loku_exp.data.batches import Stream, pad
from loku_exp.fisher.hooks import diagonal_fisher, told_apart
from loku_exp.inits.cost import svd_flops
from loku_exp.inits.fila import _seeded_svd, low_rank
from loku_exp.inits.interface import Factors, Layer
from loku_exp.inits.vanilla import vanilla
from loku_exp.losses.builtin import ga, ihl
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.models.flops import StepFlops, _Products, fisher_flops
from loku_exp.models.load import linear_layers
from loku_exp.training.trainer import Objective, ObjectiveTrainer
from tests.helpers import random_sequence, tiny_model
from tests.models import architectures
from tests.models.architectures import ARCHITECTURES

VOCABULARY, RANK = 61, 3
FORGET = pad([random_sequence(*shape, 61, 1) for shape in ((9, 3), (5, 1), (7, 6))])
RETAIN = pad([random_sequence(*shape, 61, 2) for shape in ((4, 0), (11, 5), (6, 2))])
BATCH = {"forget": FORGET, "retain": RETAIN}


def build(shape: str, attention: str = "eager") -> nn.Module:
    """A random model; Llama with a head width of its own and grouped keys, Phi with parallel blocks."""
    from transformers import AutoModelForCausalLM, LlamaConfig, PhiConfig

    if shape == "neo":
        return tiny_model()
    common = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 24, "max_position_embeddings": 64,
    }  # fmt: skip
    config = (
        LlamaConfig(num_hidden_layers=3, head_dim=8, **common)
        if shape == "llama"
        else PhiConfig(num_hidden_layers=2, partial_rotary_factor=1.0, **common)
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


TARGETS = {"all": ["all-linear"], "qv": ["q_proj", "v_proj"], "mlp": ["c_fc", "up_proj", "fc1"]}


def adapted(model: nn.Module, targets: str) -> nn.Module:
    known = {name.split(".")[-1] for name in linear_layers(model)} | {"all-linear"}
    adapter = Adapter(RANK, RANK, 0.0, [name for name in TARGETS[targets] if name in known])
    layers = adapter.layers(model, 0)
    factors = {
        x.name: Factors(
            x.name, torch.randn(RANK, x.weight.shape[1]), torch.zeros(len(x.weight), RANK)
        )
        for x in layers
    }
    return attach(model, factors, adapter)[0]


def prepared(shape: str, trained: str, attention: str = "eager") -> nn.Module:
    model = build(shape, attention)
    return model if trained == "full" else adapted(model, trained)


def counted(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def step(model: nn.Module, objective: Objective, batch=BATCH):
    return lambda: objective(model, batch).total.backward()


def expected(model: nn.Module, objective: Objective) -> int:
    """What the trainer adds for a micro-batch."""
    trainer = ObjectiveTrainer.__new__(ObjectiveTrainer)
    trainer._objective, trainer._step_flops = objective, StepFlops.of(model)
    return trainer.floating_point_ops(BATCH)


GA, IHL = Objective(ga, ("forget",)), Objective(ihl, ("forget", "retain"))


@pytest.mark.parametrize("shape", ["neo", "llama", "phi"])
@pytest.mark.parametrize("trained", ["all", "qv", "mlp", "full"])
@pytest.mark.parametrize("objective", [GA, IHL], ids=["ga", "ihl"])
def test_step_equals_the_counter(shape, trained, objective):
    model = prepared(shape, trained)
    assert expected(model, objective) == counted(step(model, objective))


@pytest.mark.parametrize(
    "kind", sorted(ARCHITECTURES.keys() - {"mamba"})
)  # convolutions are left out
@pytest.mark.parametrize("trained", ["all-linear", "full"])
def test_a_step_of_every_architecture_equals_the_counter(kind, trained):
    model: Any = architectures.build(kind)
    model.set_attn_implementation("eager")
    if trained != "full":
        adapter = Adapter(RANK, RANK, 0.0, [trained])
        factors = {made.name: made for made in vanilla(adapter.layers(model, seed=0))}
        model, _ = attach(model, factors, adapter)
    assert expected(model, GA) == counted(step(model, GA))


@pytest.mark.parametrize("trained", ["qv", "full"])
@pytest.mark.parametrize("head", [{"plain": True}, {"chunk_rows": 4}, {"chunk_rows": 12}])
def test_every_head_equals_the_counter(trained, head):
    """Of 11 and 13 labels, 12 rows leave one batch whole and split the other."""
    model, objective = prepared("neo", trained), Objective(ihl, ("forget", "retain"), **head)
    assert expected(model, objective) == counted(step(model, objective))


@pytest.mark.parametrize("trained", ["qv", "full"])
def test_sdpa_is_counted_like_eager(trained):
    assert StepFlops.of(prepared("llama", trained, "sdpa")).flops(FORGET) == StepFlops.of(
        prepared("llama", trained)
    ).flops(FORGET)


@pytest.mark.parametrize("trained", ["all", "qv", "full"])
@pytest.mark.parametrize("shape", ["neo", "llama"])
def test_checkpointing_adds_a_forward_pass(shape, trained):
    model = prepared(shape, trained).train()  # transformers checkpoints in training only
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    formula, actual = expected(model, IHL), counted(step(model, IHL))
    # The last layer of a block: torch stops before the product nothing in the backward pass needs.
    layers = linear_layers(model)
    last = {"neo": "c_proj", "llama": "down_proj"}[shape]
    tokens = FORGET["input_ids"].numel() + RETAIN["input_ids"].numel()
    skipped = sum(
        2 * tokens * module.weight.numel()
        for name, module in layers.items()
        if (last + ".lora_B" if trained == "all" else last) in name
    )
    assert formula - actual == skipped


def test_a_tiny_step_by_hand():
    """One Neo block: width 16, two heads of 8, MLP of 64, V = 61; two blocks, LoRA of rank 3 on q, v."""
    model = prepared("neo", "qv")
    batch = pad([random_sequence(5, 2, 61, 0)])  # T = 5, three labels
    attention_layers, mlp_layers = 4 * 16 * 16, 2 * 16 * 64
    lora = 2 * (16 * 3 + 3 * 16)
    first = (
        attention_layers + mlp_layers + lora  # forward
        + 16 * 16 + mlp_layers  # back through out_proj, c_fc, c_proj; q, k, v see frozen inputs
        + 2 * 3 * 16  # back through both B; A's inputs are frozen
        + lora  # weight gradients
    )  # fmt: skip
    second = 2 * (attention_layers + mlp_layers + lora) + lora  # all inputs need a gradient
    pairs_first = 2 * 16 + 16 + 2 * 16  # forward; queries only (keys are frozen); scores and values
    pairs_second = 2 * 16 * 3
    head = 3 * 16 * 61 * 2
    by_hand = 2 * (5 * (first + second) + 5 * 5 * (pairs_first + pairs_second) + head)
    assert by_hand == 146_272
    assert StepFlops.of(model).flops(batch) == by_hand
    assert counted(step(model, GA, {"forget": batch})) == by_hand


@pytest.mark.parametrize("shape", ["neo", "llama", "phi"])
@pytest.mark.parametrize(
    ("group_size", "micro_batch_size"), [(1, 1), (1, 3), (2, 1), (2, 4), (4, 4)]
)
def test_fisher_equals_the_counter(shape, group_size, micro_batch_size):
    model = build(shape)
    layers = dict(list(linear_layers(model).items())[1:4])  # not all of them
    shapes = ((9, 3), (5, 0), (7, 5), (12, 4), (6, 1))
    sequences = [random_sequence(*shape, 61, seed) for seed, shape in enumerate(shapes)]
    sizes = {"group_size": group_size, "micro_batch_size": micro_batch_size}
    actual = counted(lambda: diagonal_fisher(model, layers, sequences, **sizes))
    looked = counted(lambda: told_apart(model, layers, **sizes))  # six tokens, once
    assert fisher_flops(model, layers, sequences, **sizes) == actual - looked


def qr_and_svd(m: int, n: int, q: int, k: int) -> float:
    """LAPACK's geqrf and orgqr (2 s q^2 - 2 q^3 / 3 each) and the SVD of (q, n): no rule to count by."""
    qr = sum(2 * (2 * s * q**2 - 2 * q**3 / 3) for s in [m] * (k + 1) + [n] * k)
    return qr + 6 * n * q**2 + 20 * q**3


@pytest.mark.parametrize(("out", "width"), [(50, 40), (40, 50), (90, 200)])
def test_svd_products_equal_the_counter(out, width):
    layer = Layer("x", torch.randn(out, width), 4, 1.0, 0)
    n, m = sorted((out, width))
    official = counted(lambda: _seeded_svd(layer.weight, 4, 0, 2))
    formula = svd_flops([layer], oversampling=0, power_iterations=2)
    assert formula - official == round(qr_and_svd(m, n, 4, 2))
    ours = counted(lambda: low_rank(layer.weight, 4, 0))
    assert svd_flops([layer], oversampling=32, power_iterations=8) - ours == round(
        qr_and_svd(m, n, 36, 8)
    )
    assert svd_flops([layer, layer], oversampling=32, power_iterations=8, exact=True) == 2 * (
        6 * m * n**2 + 20 * n**3
    )
    assert counted(lambda: low_rank(layer.weight, 4, 0, exact=True)) == 0


@pytest.mark.parametrize("shape", ["neo", "llama", "phi"])
def test_fewer_trained_weights_cost_less(shape):
    costs = [expected(prepared(shape, trained), IHL) for trained in ("qv", "all", "full")]
    assert costs == sorted(set(costs))


def test_linear_terms_double_with_the_texts_and_attention_quadruples_with_their_length():
    step_flops = StepFlops.of(prepared("neo", "all"))
    once, twice, long = (
        step_flops.flops(pad([random_sequence(length, length - 1, 61, 0)] * texts))
        for texts, length in ((1, 8), (2, 8), (1, 16))
    )
    assert twice == 2 * once
    attention = 2 * (step_flops.pair + step_flops.pair_backward) * 8**2
    head = 2 * 2 * 16 * 61  # one label each
    assert long - 4 * attention - head == 2 * (once - attention - head)


def test_rotary_angles_are_left_out():
    """Some versions write them as a product of frequencies and positions, (1, 4, 1) by (1, 1, T)."""
    with _Products() as seen:
        torch.ones(1, 4, 1) @ torch.ones(1, 1, 2)
    assert not any(seen.sums.values())


def test_nothing_of_the_model_or_the_generator_is_changed():
    model = prepared("neo", "qv").train()
    state, flags = torch.get_rng_state(), [p.requires_grad for p in model.parameters()]
    StepFlops.of(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_trainer_adds_up_its_micro_batches(tmp_path):
    from loku_exp.config.compose import compose_config
    from loku_exp.data.batches import collate
    from loku_exp.training.schedule import Plan
    from loku_exp.training.trainer import fit

    sets = {
        "forget": [random_sequence(6 + i, 2, 61, i) for i in range(4)],
        "retain": [random_sequence(5 + i, 2, 61, 50 + i) for i in range(4)],
    }
    recipe = compose_config(["model=phi"]).training.model_copy(
        update={
            "batch_size": 4,
            "micro_batch_size": 2,
            "epochs": 1,
            "warmup_epochs": 0,
            "learning_rate": 1e-3,
        }
    )
    stream, model = Stream(sets, 4, seed=0), prepared("neo", "all")
    history = fit(
        model, stream, IHL, recipe, Plan.of(recipe, 4),
        folder=tmp_path, seed=0, callbacks=[],
    )  # fmt: skip
    step_flops = StepFlops.of(model)
    batches = [collate([stream[i], stream[i + 1]]) for i in (0, 2)]
    assert history[-1]["total_flops"] == sum(
        step_flops.flops(batch[name]) for batch in batches for name in sets
    )
