"""The variance of a random adapter's gradients, against PEFT's own adapter and plain loops."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loku_exp.errors import UserError
from loku_exp.fisher.measure import draw_retain
from loku_exp.fisher.variance import gradient_variances, random_adapter, variance_measure
from loku_exp.inits.interface import Layer
from loku_exp.models.load import linear_layers, weight_matrix
from tests.helpers import tiny_model, tiny_records

RANK, ALPHA = 3, 6
RECORDS = tiny_records()
KNOBS = {
    "std": 0.05,
    "group_size": 2,
    "weighting": "labels",
    "epsilon": 1e-5,
    "num_retain": None,
    "seed": 0,
}


def layers_of(model):
    wanted = [name for name in linear_layers(model) if name.endswith(("q_proj", "c_fc"))]
    found = linear_layers(model)
    return [Layer(n, weight_matrix(found[n]), RANK, ALPHA / RANK, i) for i, n in enumerate(wanted)]


def by_peft(layers, adapter, texts, group_size, weighting):
    """Gradients of PEFT's adapter with the same A and B, a group at a time; variance by its definition."""
    model = tiny_model()
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=[layer.name for layer in layers])
    adapted = get_peft_model(model, config).eval()
    parts: dict[str, tuple] = {}
    for layer in layers:
        module = adapted.get_submodule(f"base_model.model.{layer.name}")
        parts[layer.name] = module.lora_A["default"].weight, module.lora_B["default"].weight
        for part, value in zip(parts[layer.name], adapter[layer.name], strict=True):
            part.data.copy_(value.detach())
    gradients = []
    for first in range(0, len(texts), group_size):
        group, total, labels = texts[first : first + group_size], 0, 0
        for text in group:
            logits = adapted(torch.tensor([text.ids])).logits[0, :-1]
            target = torch.tensor(text.labels[1:])
            total = total + torch.nn.functional.cross_entropy(logits, target, reduction="sum")
            labels += int((target != -100).sum())
        flat = [part for pair in parts.values() for part in pair]
        loss = torch.as_tensor(total / labels)
        size = labels if weighting == "labels" else len(group)
        gradients.append((size, torch.autograd.grad(loss, flat)))
    n = sum(size for size, _ in gradients)
    means = [sum(s * g[i] for s, g in gradients) / n for i in range(2 * len(layers))]
    return [
        sum(s * (g[i] - means[i]) ** 2 for s, g in gradients) / n for i in range(2 * len(layers))
    ]


@pytest.mark.parametrize("weighting", ["labels", "examples"])
@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_variances_are_those_of_pefts_adapter_group_by_group(group_size, weighting):
    model = tiny_model()
    layers = layers_of(model)
    adapter = random_adapter(layers, 0.3, seed=1)
    texts = [record.answer for record in RECORDS.forget]
    found = gradient_variances(model, layers, adapter, texts, group_size, weighting)
    expected = iter(by_peft(layers, adapter, texts, group_size, weighting))
    for pair in found.values():
        for variance in pair:
            wanted = next(expected)
            torch.testing.assert_close(variance, wanted, rtol=2e-3, atol=1e-6 * float(wanted.max()))


def test_importance_is_the_product_of_both_and_leaves_the_model_as_it_was(capsys):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = layers_of(model)
    importance = variance_measure(model, RECORDS.forget, RECORDS.retain)(layers, **KNOBS)
    adapter = random_adapter(layers, KNOBS["std"], KNOBS["seed"])
    retain = draw_retain(RECORDS.retain, len(RECORDS.forget), KNOBS["seed"])
    of_forget, of_retain = (
        gradient_variances(model, layers, adapter, [r.answer for r in rows], KNOBS["group_size"])
        for rows in (RECORDS.forget, retain)
    )
    for layer in layers:
        (fa, fb), (ra, rb) = of_forget[layer.name], of_retain[layer.name]
        f, r = fb @ fa, rb @ ra
        expected = (f / (r + KNOBS["epsilon"] * r.mean())).sum(1).sqrt()
        torch.testing.assert_close(importance.row_weights[layer.name], expected)
    assert importance.flops > 0
    assert capsys.readouterr().out == ""
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_one_group_has_no_variance():
    model = tiny_model()
    with pytest.raises(UserError, match=r"more than one group of 6 examples"):
        variance_measure(model, RECORDS.forget, RECORDS.retain)(
            layers_of(model), **(KNOBS | {"group_size": 6})
        )


def test_the_adapter_depends_on_its_seed_and_each_layers_name():
    layers = layers_of(tiny_model())
    one, same, other = (random_adapter(layers, 0.05, seed=seed) for seed in (0, 0, 1))
    first, second = layers[0].name, layers[1].name
    assert torch.equal(one[first][0], same[first][0])
    assert not torch.equal(one[first][0], other[first][0])
    assert one[first][0].shape != one[second][0].shape or not torch.equal(
        one[first][0], one[second][0]
    )
    flat = torch.cat([factor.flatten() for pair in one.values() for factor in pair])
    assert float(flat.detach().std()) == pytest.approx(0.05, rel=0.1)


def test_the_share_below_epsilon_is_counted_over_all_weights():
    model = tiny_model()
    layers, knobs = layers_of(model), KNOBS | {"epsilon": 0.5}
    found = variance_measure(model, RECORDS.forget, RECORDS.retain)(layers, **knobs)
    adapter = random_adapter(layers, KNOBS["std"], KNOBS["seed"])
    texts = [r.answer for r in draw_retain(RECORDS.retain, len(RECORDS.forget), KNOBS["seed"])]
    variances = gradient_variances(model, layers, adapter, texts, KNOBS["group_size"])
    below = [b @ a < 0.5 * (b @ a).mean() for a, b in variances.values()]
    share = float(torch.cat([weights.flatten() for weights in below]).double().mean())
    assert 0 < share < 1
    assert found.epsilon_share == pytest.approx(share, abs=1e-12)
