"""What works on which architecture, and what is refused in one line before anything is made.

``docs/architectures.md`` is what is found here. After a change: ``python -m tests.models.test_matrix``.
"""

import tempfile
from dataclasses import astuple, dataclass, fields
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from peft import PeftModel
from torch.nn import functional

from loku_exp.data.batches import pad
from loku_exp.data.records import IGNORED, Sequence
from loku_exp.errors import ModelError
from loku_exp.evaluation.lm import wavefront
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.fisher.blockwise import sweep_fisher
from loku_exp.fisher.hooks import reduce_fisher, told_apart
from loku_exp.inits.interface import Factors
from loku_exp.methods.adapter import Adapter, attach, coverage, fold
from loku_exp.models.configuration import LENGTHS
from loku_exp.models.load import (
    architecture,
    context_length,
    linear_layers,
    load_model,
    weight_matrix,
)
from loku_exp.models.weights import problems
from tests.evaluation.tdec.memorising import decode_all
from tests.helpers import random_sequence
from tests.models.architectures import (
    ARCHITECTURES,
    POSITIONS,
    TITLES,
    VOCABULARY,
    build,
    folder,
    settings,
    tokenizer,
)

PAGE = Path(__file__).parents[2] / "docs/architectures.md"
CPU = torch.device("cpu")
HEAD = """# Architectures

What works on which kind of model, found by running it on small random ones (`tests/models/test_matrix.py`,
which also writes this page: `python -m tests.models.test_matrix`). Others may work; what does not fit is
refused in one line before anything is made.

- **loads**: saved and loaded bit by bit, all tensors there; `model.attention` where one must be named.
- **Fisher**: equal to autograd, example by example, to 1e-5, by hooks and by the sweep over blocks.
  *one by one*: some layers are not called text by text, so a forward pass has one group of examples.
- **adapter**: the share of the weights in matrices, without embeddings and output head, that
  `lora.targets=all` reaches. Attached it leaves the logits as they are; folded it gives, by plain peft on
  the untouched base, those of the model in memory.
- **scoring**: equal to every answer alone. *shared*: a question is read once for all its answers.
- **decoding**: equal to the continuation of every prefix alone. *cached*: from a key-value cache.

"""


@dataclass(frozen=True)
class Row:
    architecture: str
    loads: str
    fisher: str = "-"
    adapter: str = "-"
    scoring: str = "-"
    decoding: str = "-"
    note: str = ""


@cache
def found(kind: str) -> Row:
    """Run everything on an architecture; what is wrong raises, what is refused is said."""
    with tempfile.TemporaryDirectory() as place:
        base = folder(kind, Path(place) / "base")
        notes = []
        loads, own = loaded_as(kind, base)
        try:
            model = load_model(own, str(base), CPU)
        except ModelError as error:
            return Row(TITLES[kind], "refused", note=str(error).split(": ", 1)[1])
        for saved, there in zip(build(kind).parameters(), model.parameters(), strict=True):
            assert torch.equal(saved, there)
        notes += context_of(own)
        fisher = fisher_of(model)
        adapter, left_out = adapter_of(model, partial(load_model, own, str(base), CPU), Path(place))
        model = load_model(own, str(base), CPU)
        rows = [fisher, adapter, scoring_of(model), decoding_of(model)]
        generation_of(model)
        notes += [f"not adapted: {', '.join(left_out)}"] if left_out else []
        return Row(TITLES[kind], loads, *rows, "; ".join(notes))


def loaded_as(kind, base):
    """Whether the fused attention goes; where it does not, the way out that is said goes."""
    own = settings(base, attention="sdpa")
    said = problems(str(base), "model.path", own, tokenizer())
    if not said:
        return "yes", own
    assert len(said) == 1
    assert said[0].endswith("set model.attention=eager")
    assert "\n" not in said[0]
    own = settings(base, attention="eager")
    refused = problems(str(base), "model.path", own, tokenizer())  # what no attention mends
    assert all("this model is not supported" in line for line in refused)
    return "`eager`", own


def context_of(own):
    """Whether the configuration names a context; where it does not, the way out that is said goes."""
    config = architecture(own, tokenizer())
    shorter = own.model_copy(update={"context_length": POSITIONS})
    assert context_length(architecture(shorter, tokenizer())) == POSITIONS
    if any(getattr(config, field, None) for field in LENGTHS):
        assert context_length(config) >= POSITIONS
        return []
    with pytest.raises(ModelError, match=r"model\.context_length=\d+$"):
        context_length(config)
    return ["needs `model.context_length`"]


SHAPES = [(9, 3), (5, 0), (7, 5), (4, 2), (6, 1)]  # length, masked tokens
FORGET = [random_sequence(*shape, VOCABULARY, seed) for seed, shape in enumerate(SHAPES)]
RETAIN = FORGET[:2]


def by_autograd(model, sequences, group_size):
    """A loop over groups: the squared gradient of each one's token-mean cross-entropy."""
    layers = linear_layers(model)
    sums, total = {name: 0 for name in layers}, 0
    for start in range(0, len(sequences), group_size):
        batch = pad(sequences[start : start + group_size])
        labels = batch["labels"][:, 1:].flatten()
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, ignore_index=IGNORED)
        leaves = [layer.weight for layer in layers.values()]
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        count = int((labels != IGNORED).sum())
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
            sums[name] = sums[name] + count * weight_matrix(layer, gradient) ** 2
        total += count
    return {name: value / total for name, value in sums.items()}


def fisher_of(model):
    layers = linear_layers(model)
    for group_size, micro_batch_size in ((1, 3), (2, 4)):
        expected = by_autograd(model, FORGET, group_size)
        for way in (reduce_fisher, sweep_fisher):
            measured = {}

            def keep(name, forget, _, measured=measured):
                measured[name] = forget

            sizes = {"group_size": group_size, "micro_batch_size": micro_batch_size}
            way(model, layers, FORGET, RETAIN, keep, **sizes)
            for name, value in expected.items():
                error = (measured[name] - value).norm() / value.norm()
                assert error <= 1e-5, (way, name, error)
    by_text, _ = told_apart(model, layers, 1, 2)
    return "yes" if by_text == layers.keys() else "one by one"


def logits_of(model):
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        return model(input_ids=ids).logits


def adapter_of(model, load, place):
    """Attach factors that change the base, train them a little, fold, load by plain peft."""
    adapter = Adapter(rank=2, alpha=4, dropout=0.0, targets=["all-linear"])
    share, left_out = coverage(model, adapter.targets)
    untouched = logits_of(model)
    generator = torch.Generator().manual_seed(2)
    factors = {}
    for layer in adapter.layers(model, seed=0):
        (out, width), rank = layer.weight.shape, layer.rank
        a = 0.3 * torch.randn(rank, width, generator=generator)
        factors[layer.name] = Factors(
            layer.name, a, 0.3 * torch.randn(out, rank, generator=generator)
        )
    adapted, taken = attach(model, factors, adapter)
    assert taken > 0.1
    torch.testing.assert_close(logits_of(adapted.eval()), untouched, rtol=1e-4, atol=1e-3)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert len(trained) == 2 * len(factors)
    adapted(input_ids=torch.arange(12)[None], labels=torch.arange(12)[None]).loss.backward()
    with torch.no_grad():
        for parameter in trained:
            assert parameter.grad.any()
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    expected = logits_of(adapted)
    assert (expected - untouched).abs().max() > 0.1
    fold(adapted, factors, adapter, place / "adapter")
    again = PeftModel.from_pretrained(load(), str(place / "adapter")).eval()
    torch.testing.assert_close(logits_of(again), expected, rtol=1e-4, atol=1e-3)
    return f"{100 * share:.0f} %", left_out


def questions():
    for k in range(2):
        stem = random_sequence(8 + k, 1, VOCABULARY, k).ids
        for length in range(2, 5 + k):
            answer = random_sequence(length, 1, VOCABULARY, 10 * length + k).ids
            yield Sequence(stem + answer, (IGNORED,) * len(stem) + answer)


def asked(model, kind, arguments):
    """What lm-eval gets for requests; and what was found out about the model on the way."""
    inference = Inference(model, tokenizer(), batch_tokens=200, max_length=POSITIONS)
    requests = [Instance(kind, {}, argument, 0, (None, None, 1)) for argument in arguments]
    return getattr(UnlearnLM(Answers(), lambda: inference), kind)(requests), inference


def scoring_of(model):
    texts = list(questions())
    scores, inference = asked(model, "token_scores", [("", text) for text in texts])
    for text, score in zip(texts, scores, strict=True):
        with torch.no_grad():
            logprobs = model(input_ids=torch.tensor([text.ids])).logits[0].log_softmax(-1)
        places = [t for t, label in enumerate(text.labels) if label != IGNORED]
        plain = [logprobs[t - 1, text.ids[t]].item() for t in places]
        assert score.logprobs == pytest.approx(plain, rel=1e-5, abs=1e-5)
        assert score.greedy == [int(logprobs[t - 1].argmax()) == text.ids[t] for t in places]
    return "shared" if all(inference._obeys.values()) else "plain"


def decoding_of(model):
    texts = [random_sequence(n, 1, VOCABULARY, n).ids for n in (12, 9, 12)]
    with pytest.MonkeyPatch.context() as patch:
        cached = []

        def aligns(*args, true=wavefront.aligns):
            cached.append(true(*args))
            return cached[-1]

        patch.setattr(wavefront, "aligns", aligns)
        answers = wavefront.greedy_continuations(
            model, texts, lambda ids, _: list(range(1, len(ids))), 10**9
        )
    for ids, answer in zip(texts, answers, strict=True):
        assert {t: tuple(said) for t, *said in answer.decoded} == decode_all(model, ids)
    return "cached" if cached == [True] else "plain"


def generation_of(model):
    """Prompts of different lengths together, as each alone."""
    prompts = [random_sequence(n, 1, VOCABULARY, n).ids for n in (2, 5, 9)]
    together, _ = asked(model, "generate_ids", [("", ids, 14) for ids in prompts])
    for ids, generated in zip(prompts, together, strict=True):
        alone = list(ids)
        while len(alone) < 14:
            with torch.no_grad():
                token = int(model(input_ids=torch.tensor([alone])).logits[0, -1].argmax())
            if token == tokenizer().eos_token_id:
                break
            alone.append(token)
        assert generated == alone[len(ids) :]


def page() -> str:
    heads = [field.name if field.name != "fisher" else "Fisher" for field in fields(Row)]
    rows = [heads, ["---"] * len(heads), *(list(astuple(found(kind))) for kind in ARCHITECTURES)]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_is_found_is_what_the_page_says(kind):
    assert f"| {' | '.join(astuple(found(kind)))} |" in PAGE.read_text().splitlines()


def test_the_page_is_what_is_found():
    assert PAGE.read_text() == page(), "python -m tests.models.test_matrix writes it anew"


if __name__ == "__main__":
    PAGE.write_text(page())
