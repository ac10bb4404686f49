"""A model that changes its prompts is asked plainly: all numbers equal computing them one by one.

The model puts noise on the embeddings of every prompt's tokens but the last. The slow version here adds
the same noise by hand and forwards one whole text at a time, without masks, caches or padding.
"""

from functools import cache
from statistics import fmean

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from loku_exp.data.records import IGNORED, Example, Records, Sequence
from loku_exp.evaluation.harness import evaluate
from loku_exp.evaluation.tdec.suite import tdec_suite
from loku_exp.evaluation.tofu import metrics
from loku_exp.methods.prompt_corruption import CorruptedPrompts
from loku_exp.methods.prompt_flag import BUCKETS
from loku_exp.methods.wrapper import Wrapper
from loku_exp.runtime.seeds import derive
from tests.evaluation.tdec.memorising import likelihood, random_text
from tests.helpers import (
    TOKENIZER,
    inference_of,
    instances,
    lm_of,
    tiny_model,
    tiny_records,
    tiny_suite,
)

STRENGTH, SEED = 3.0, 5
SETTINGS = {"threshold": -1e9, "strength": STRENGTH, "longest": 2, "seed": SEED}  # flags everything
KINDS = ["gpt_neo", "llama"]


@cache
def base(kind):
    vocabulary = len(TOKENIZER)
    if kind == "gpt_neo":
        model = tiny_model(vocabulary=vocabulary)
    else:
        torch.manual_seed(2)
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=32, max_position_embeddings=64,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        model = LlamaForCausalLM(config).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def corrupted(kind):
    return CorruptedPrompts(base(kind), torch.zeros(BUCKETS), SETTINGS).eval()


def language_model(kind, reads_prompts=True, batch_tokens=200):
    options = {"reads_prompts": reads_prompts, "batch_tokens": batch_tokens}
    return lm_of(inference_of(corrupted(kind), **options))


@torch.no_grad()
def logprobs_of(kind, ids, prompt):
    """Log-probabilities (T, V) of a text whose first `prompt` tokens are the prompt."""
    model = base(kind)
    weight = model.get_input_embeddings().weight
    embedded = weight[list(ids)].clone()
    seed = derive(SEED, "corruption", ",".join(map(str, ids[:prompt])))
    noise = torch.randn(prompt, weight.shape[1], generator=torch.Generator().manual_seed(seed))
    if prompt > 1:
        embedded[: prompt - 1] += noise[: prompt - 1] * STRENGTH * weight.std()
    return model(inputs_embeds=embedded[None], use_cache=False).logits[0].log_softmax(-1)


def scores_of(kind, sequence):
    """Log-probability and greediness of the labelled tokens; the prompt is what comes before them."""
    prompt = next(t for t, label in enumerate(sequence.labels) if label != IGNORED)
    table = logprobs_of(kind, sequence.ids, prompt)
    labelled = range(max(prompt, 1), len(sequence.ids))
    values = [table[t - 1, sequence.ids[t]].item() for t in labelled]
    return values, [int(table[t - 1].argmax()) == sequence.ids[t] for t in labelled]


def continuation_of(kind, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logprobs_of(kind, tuple(ids), len(prompt))[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_matters(kind):
    """Or nothing here could fail."""
    ids = random_text(12, 1)
    with torch.no_grad():
        plain = base(kind)(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    assert torch.equal(logprobs_of(kind, ids, 1), logprobs_of(kind, ids, 0))
    assert torch.allclose(logprobs_of(kind, ids, 0), plain, atol=1e-5)
    assert (logprobs_of(kind, ids, 6) - plain).abs().mean() > 0.3
    assert (logprobs_of(kind, ids, 6) - logprobs_of(kind, ids, 7)).abs().mean() > 0.3


# -- TOFU ----------------------------------------------------------------------------------------


def tofu_by_hand(kind):
    values, generations = {}, {}
    for name, records in tiny_records().evaluation.items():
        prob, truth = [], []
        for record in records[:3]:
            texts = [
                record.answer,
                *record.alternatives["paraphrase"],
                *record.alternatives["wrong"],
            ]
            answer, paraphrase, *wrong = (-fmean(scores_of(kind, text)[0]) for text in texts)
            if name in ("authors", "facts"):
                prob.append(metrics.choice_probability(answer, wrong))
            else:
                prob.append(metrics.probability(answer))
            ratio = metrics.log_ratio(paraphrase, wrong)
            truth.append(metrics.truth_ratio(ratio, forget=name == "forget"))
            said = continuation_of(kind, record.prompt, 24 - len(record.prompt))
            generations[name, record.row] = " ".join(map(str, said))
        values |= {f"{name}_prob": fmean(prob), f"{name}_truth_ratio": fmean(truth)}
    return values, generations


@pytest.mark.parametrize("kind", KINDS)
def test_tofus_numbers(kind):
    expected, generations = tofu_by_hand(kind)
    tasks = tiny_suite(rows=3).tasks(None, "full")
    found = evaluate(language_model(kind), tasks)
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert {(row["set"], row["row"]): row["generation"] for row in found.examples} == generations
    wrong = evaluate(language_model(kind, reads_prompts=False), tasks)
    pairs = list(zip(found.examples, wrong.examples, strict=True))
    assert len(pairs) == 12
    assert sum(abs(right["loss"] - other["loss"]) > 0.02 for right, other in pairs) >= 11


# -- TDEC ----------------------------------------------------------------------------------------

LENGTH, SUFFIX, N = 16, 4, 2
TEXTS = {
    "forget": [random_text(LENGTH, seed) for seed in (1, 2)] + [random_text(9, 3)],
    "unseen": [random_text(LENGTH, 4)],
    "pile": [random_text(13, 5)],
}


def extraction():
    sets = {
        name: [Example(k, "", name, ids, Sequence(ids, ids)) for k, ids in enumerate(texts)]
        for name, texts in TEXTS.items()
    }
    knobs = {"n": [N], "end_of_text": "continue"}
    return tdec_suite(Records([], [], sets["forget"], [], sets), TOKENIZER, **knobs)


def extraction_by_hand(kind, name):
    values = []
    for ids in TEXTS[name]:
        tables = {t: logprobs_of(kind, ids[:t], t)[-1] for t in range(1, len(ids))}
        right = [int(tables[t].argmax()) == ids[t] for t in tables]
        said = {t: tuple(continuation_of(kind, ids[:t], len(ids) - t)) for t in tables}
        value = {
            "ma": fmean(right),
            "loss": -fmean(tables[t][ids[t]].item() for t in tables),
            f"el{N}": likelihood(ids, said, N),
        }
        if len(ids) == LENGTH:
            last = ids[-2 * SUFFIX :]
            labels = (IGNORED,) * SUFFIX + last[SUFFIX:]
            value["exact4"] = float(all(scores_of(kind, Sequence(last, labels))[1]))
            value["exact12"] = float(all(right[-SUFFIX:]))
        values.append(value)
    names = {key for value in values for key in value}
    return {f"{name}_{key}": fmean(v[key] for v in values if key in v) for key in names}


@pytest.mark.parametrize("kind", KINDS)
def test_extractions_numbers(kind):
    """Every prefix of a text is a prompt of its own."""
    suite = extraction()
    tasks = [*suite.tasks(None, "full"), *suite.abilities]
    expected = extraction_by_hand(kind, "forget") | extraction_by_hand(kind, "unseen")
    (pile,) = TEXTS["pile"]
    expected["pile_ppl"] = torch.tensor(scores_of(kind, Sequence(pile, pile))[0]).mean().neg().exp()
    found = evaluate(language_model(kind), tasks).metrics
    assert found == pytest.approx({k: float(v) for k, v in expected.items()}, abs=1e-4, rel=1e-4)
    wrong = evaluate(language_model(kind, reads_prompts=False), tasks).metrics
    assert wrong["pile_ppl"] == pytest.approx(found["pile_ppl"], rel=1e-4)  # it has no prompt
    for name in ("forget", "unseen"):
        assert abs(wrong[f"{name}_loss"] - found[f"{name}_loss"]) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_fused_decoding_would_say_something_else(kind):
    asked = instances("greedy_suffixes", [("", ids, 1) for ids in TEXTS["forget"]])
    plain, fused = (language_model(kind, reads).greedy_suffixes(asked) for reads in (True, False))
    for ids, one, other in zip(TEXTS["forget"], plain, fused, strict=True):
        said = {t: continuation_of(kind, ids[:t], len(ids) - t) for t, *_ in one.decoded}
        assert {t: tokens for t, *tokens in one.decoded} == said
        assert one.argmax != other.argmax
        assert {t: tokens for t, *tokens in other.decoded} != said


# -- lm-eval's own request types -----------------------------------------------------------------

PAIRS = [("a b c d e f", " g"), ("b a", " c d"), ("a b c d e f", " a b"), ("g e a", " e e")]


def ids_of(text):
    return tuple(TOKENIZER(text).input_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_loglikelihood(kind):
    found = language_model(kind).loglikelihood(instances("loglikelihood", PAIRS))
    wrong = language_model(kind, False).loglikelihood(instances("loglikelihood", PAIRS))
    for (context, continuation), (logprob, greedy), (other, _) in zip(
        PAIRS, found, wrong, strict=True
    ):
        before, ids = ids_of(context), ids_of(context + continuation)
        labels = (IGNORED,) * len(before) + ids[len(before) :]
        logprobs, right = scores_of(kind, Sequence(ids, labels))
        assert logprob == pytest.approx(sum(logprobs), abs=1e-4)
        assert greedy == all(right)
        assert abs(other - logprob) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_generate_until(kind):
    contexts = ["a b c d e f", "b a", "g e a", "c"]
    asked = instances(
        "generate_until", [(c, {"until": ["#"], "max_gen_toks": 6}) for c in contexts]
    )
    expected = [TOKENIZER.decode(continuation_of(kind, ids_of(c), 6)) for c in contexts]
    assert language_model(kind).generate_until(asked) == expected
    with torch.no_grad():
        uncorrupted = lm_of(inference_of(base(kind))).generate_until(asked)
    assert uncorrupted[0] != expected[0]


@pytest.mark.parametrize("kind", KINDS)
def test_generation_settings_of_the_wrapped_model_are_not_followed(kind, monkeypatch):
    prompts = [("", random_text(5 + k, k), 20) for k in range(3)]
    expected = [continuation_of(kind, prompt, 20 - len(prompt)) for _, prompt, _ in prompts]
    own = base(kind).generation_config
    monkeypatch.setattr(own, "repetition_penalty", 5.0)
    monkeypatch.setattr(own, "eos_token_id", expected[0][2])
    found = language_model(kind).generate_ids(instances("generate_ids", prompts))
    assert found == expected
    assert base(kind).generation_config is own


@pytest.mark.parametrize("kind", KINDS)
def test_batches_hold_one_text_each(kind):
    inference = inference_of(corrupted(kind), reads_prompts=True, batch_tokens=10_000)
    asked: dict[str, list] = {
        "token_scores": [("", text.answer) for text in tiny_records().forget],
        "generate_ids": [("", text.prompt, 9) for text in tiny_records().evaluation["facts"]],
        "greedy_suffixes": [("", ids, 1) for ids in TEXTS["forget"]],
    }
    for name, arguments in asked.items():
        distinct = {repr(argument): argument for argument in arguments}
        batches = list(inference.batches(name, instances(name, list(distinct.values()))))
        assert [len(batch) for batch in batches] == [1] * len(distinct)
    assert inference.batch_size == 1


# -- a model that changes its logits -------------------------------------------------------------


class Biased(Wrapper):
    """Its first answer token is 7, whatever it would be, and the rest what it was."""

    def forward(self, input_ids, prompt_lengths=None, **options):
        output = self.wrapped(input_ids=input_ids, **options)
        for row, length in enumerate(prompt_lengths if prompt_lengths is not None else ()):
            if length:
                output.logits[row, length - 1, 7] += 100
        return output


def test_logits_of_its_own_count():
    model, ids = Biased(base("llama")).eval(), random_text(9, 4)
    inference = inference_of(model, reads_prompts=True)
    texts = [Sequence(ids, (IGNORED,) * 4 + (*labels, *ids[5:])) for labels in [(7,), (8,)]]
    texts = [Sequence((*ids[:4], *text.labels[4:]), text.labels) for text in texts]
    asked = instances("token_scores", [("", text) for text in texts])
    seven, eight = lm_of(inference).token_scores(asked)
    assert seven.greedy[0]
    assert seven.logprobs[0] == pytest.approx(0, abs=1e-5)
    assert eight.logprobs[0] < -50
    with torch.no_grad():
        plain = base("llama")(input_ids=torch.tensor([texts[0].ids])).logits[0].log_softmax(-1)
    rest = [plain[t - 1, texts[0].ids[t]].item() for t in range(5, 9)]
    assert seven.logprobs[1:] == pytest.approx(rest, abs=1e-5)
    (said,) = lm_of(inference).greedy_suffixes(instances("greedy_suffixes", [("", ids, 0)]))
    assert set(said.argmax) == {7}
