"""The Fisher information against a loop over examples, and the published pass written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import CTRLConfig, CTRLLMHeadModel

from loku_exp.data.batches import pad
from loku_exp.fisher.hooks import diagonal_fisher, reduce_fisher, row_weights
from loku_exp.models.load import linear_layers
from tests.helpers import random_sequence, tiny_model

SHAPES = [(9, 3), (5, 0), (7, 5), (12, 4), (6, 1), (8, 2), (4, 2)]  # length, masked tokens
SEQUENCES = [random_sequence(*shape, 61, seed) for seed, shape in enumerate(SHAPES)]


def gradients(model: nn.Module, sequences) -> dict[str, torch.Tensor]:
    """Gradient of the token-mean cross-entropy, by plain autograd over whole logits."""
    batch = pad(sequences)
    model.zero_grad()
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:].flatten()
    functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, ignore_index=-100).backward()
    return {name: layer.weight.grad.clone() for name, layer in linear_layers(model).items()}


def published(model: nn.Module, sequences, group_size: int) -> dict[str, torch.Tensor]:
    """csm9493/efficient-llm-unlearning, measure_importance.py, in fp32: squares of batch means."""
    sums, total = {}, 0
    for start in range(0, len(sequences), group_size):
        rows = sequences[start : start + group_size]
        count = sum(label != -100 for row in rows for label in row.labels[1:])
        for name, gradient in gradients(model, rows).items():
            sums[name] = sums.get(name, 0) + count * gradient**2
        total += count
    return {name: value / total for name, value in sums.items()}


@pytest.mark.parametrize("group_size", [1, 2, 4])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 4, 16])
def test_fisher_equals_the_published_pass(group_size, micro_batch_size):
    model = tiny_model()
    fisher = diagonal_fisher(
        model,
        linear_layers(model),
        SEQUENCES,
        group_size=group_size,
        micro_batch_size=micro_batch_size,
    )
    for name, expected in published(model, SEQUENCES, group_size).items():
        torch.testing.assert_close(fisher[name], expected, rtol=1e-4, atol=1e-10)


def test_at_micro_batch_one_the_official_estimator_is_the_per_example_one():
    model = tiny_model()
    layers = linear_layers(model)
    ours = diagonal_fisher(model, layers, SEQUENCES, group_size=1, micro_batch_size=8)
    for name, expected in published(model, SEQUENCES, group_size=1).items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-10)
    batch_mean = diagonal_fisher(model, layers, SEQUENCES, group_size=4)
    assert any(not torch.allclose(batch_mean[name], ours[name], rtol=0.1) for name in ours), (
        "two estimators that do not differ"
    )


def test_fisher_leaves_the_model_as_it_was():
    model = tiny_model()
    model.lm_head.weight.requires_grad_(False)
    before = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    model.zero_grad()
    diagonal_fisher(model, linear_layers(model), SEQUENCES[:2])
    for name, parameter in model.named_parameters():
        assert (parameter.requires_grad, parameter.grad) == (before[name][0], None)
        torch.testing.assert_close(parameter, before[name][1], rtol=0, atol=0)
    assert not model.transformer.wte._forward_hooks


def test_fisher_of_a_bf16_model_has_fp32_sums():
    model = tiny_model(dtype=torch.bfloat16)
    fisher = diagonal_fisher(model, linear_layers(model), SEQUENCES)
    exact = diagonal_fisher(tiny_model(), linear_layers(tiny_model()), SEQUENCES)
    assert all(value.dtype == torch.float32 for value in fisher.values())
    assert all(torch.isfinite(value).all() for value in fisher.values())
    assert fisher.keys() == exact.keys()


def test_reducer_gets_each_layer_once_with_both_sets():
    model = tiny_model()
    layers, seen = linear_layers(model), {}

    def reducer(name, forget, retain):
        assert name not in seen
        seen[name] = (forget, retain)

    reduce_fisher(model, layers, SEQUENCES[:3], SEQUENCES[3:], reducer)
    assert seen.keys() == layers.keys()
    name = next(iter(seen))
    torch.testing.assert_close(seen[name][0], diagonal_fisher(model, layers, SEQUENCES[:3])[name])
    torch.testing.assert_close(seen[name][1], diagonal_fisher(model, layers, SEQUENCES[3:])[name])


def test_row_weights_by_hand():
    forget = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    retain = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    # absolute: 4 / (1 + 1) = 2, its root; the second row has no importance
    assert row_weights(forget, retain, 1.0).tolist() == pytest.approx([2**0.5, 0.0])
    # relative: the mean retain Fisher is 4, so 0.25 of it is 1
    assert row_weights(forget, retain, 0.25, relative=True).tolist() == pytest.approx([2**0.5, 0.0])


def test_a_model_that_scales_its_embedding_in_place():
    config = CTRLConfig(
        vocab_size=61, n_embd=16, dff=24, n_layer=2, n_head=2, n_positions=64,
        resid_pdrop=0, embd_pdrop=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CTRLLMHeadModel(config).eval()
    fisher = diagonal_fisher(model, linear_layers(model), SEQUENCES, group_size=1)
    for name, expected in published(model, SEQUENCES, group_size=1).items():
        torch.testing.assert_close(fisher[name], expected, rtol=1e-4, atol=1e-10)
