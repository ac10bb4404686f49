"""What is timed of one shape on one device: step, Fisher, low-rank step, extraction, answers, head."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from peft.helpers import disable_input_dtype_casting
from torch.nn import functional

from benchmarks import step
from benchmarks.gpu_checks import TOLERANCE, errors_of
from loku_exp.config.compose import compose_config
from loku_exp.data.batches import Batch, Bucket, Stream, collate, pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.lm.wavefront import greedy_continuations
from loku_exp.evaluation.tdec.metrics import wanted
from loku_exp.fisher.blockwise import sweep_fisher
from loku_exp.fisher.hooks import diagonal_fisher
from loku_exp.inits.fila import fila
from loku_exp.inits.interface import Importance
from loku_exp.inits.vanilla import vanilla
from loku_exp.losses.builtin import ihl
from loku_exp.losses.terms import cross_entropy, inverted_hinge
from loku_exp.methods.adapter import Adapter, attach
from loku_exp.models import load as models
from loku_exp.models.activations import fuse_gelu
from loku_exp.models.flops import StepFlops, fisher_flops
from loku_exp.models.head import apply_term, hidden_before_head
from loku_exp.models.load import linear_layers
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.runtime.machine import resolve_attention
from loku_exp.training.trainer import Objective

RANK = 32
TINY: dict[str, dict[str, Any]] = {
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "phi": {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
    "llama": {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 128,
    },
}
TINY_FOR_ALL: dict[str, Any] = {
    "hidden_size": 64,
    "vocab_size": 512,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
Part = Callable[[], dict[str, Any]]


PARTS = (
    "shape",
    "answers",
    "extraction",
    "fisher_hooks",
    "fisher_sweep",
    "low_rank",
    "cross_entropy",
    "step_micro_batch_2",
    "step_micro_batch_16",
)


class Bench:
    """One shape on one device, and the parts that are timed on it.

    Args:
        name: of a model's yaml.
        device: where.
        tiny: two layers of width 64 instead.
    """

    def __init__(self, name: str, device: torch.device, *, tiny: bool):
        self.config = compose_config([f"model={name}", "dataset=toy_tofu"]).model
        self.device = device
        self.tiny = tiny
        self.tokenizer = train_tokenizer(["some words to make a tokenizer of"], 300)
        self.model = self.build(tiny=tiny, dtype=self.config.dtype)
        self.stream_sets = step.texts(self.model.config.vocab_size)

    def build(self, *, tiny: bool, dtype: str) -> Any:
        """Return the shape with random weights, made where it is used."""
        fields = dict(self.config.architecture or {})
        if tiny:
            fields |= TINY_FOR_ALL | TINY[str(fields["model_type"])]
        torch_dtype = getattr(torch, dtype)
        shape = self.config.model_copy(update={"weights": "random", "architecture": fields})
        attention = resolve_attention("auto", self.device, dtype)
        torch.manual_seed(0)
        with self.device:
            built = models.from_architecture(
                shape,
                self.tokenizer,
                dtype=torch_dtype,
                attn_implementation=None if attention == "auto" else attention,
            )
        fuse_gelu(built)
        return built.eval()

    def check(self) -> dict[str, float]:
        """Compare every timed part with float64 on a small shape.

        Raises:
            SystemExit: one of them is wrong.
        """
        small = self.build(tiny=True, dtype="float32")
        generator = torch.Generator().manual_seed(0)
        texts = []
        for length in (9, 12, 7, 11, 8, 10):
            ids = tuple(torch.randint(512, (length,), generator=generator).tolist())
            texts.append(Sequence(ids, (-100,) * 3 + ids[3:]))
        found = errors_of(small, self.tokenizer, texts)
        wrong = {name: error for name, error in found.items() if not error <= TOLERANCE}
        if wrong:
            raise SystemExit(f"{self.config.name} is wrong on {self.device}, not timed: {wrong}")
        return found

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Yield what is timed, in order; the last ones train an adapter on the model."""
        yield "shape", self._shape
        yield "answers", self._answers
        yield "extraction", self._extraction
        yield "fisher_hooks", self._fisher_hooks
        yield "fisher_sweep", self._fisher_sweep
        yield "low_rank", self._low_rank
        yield "cross_entropy", self._cross_entropy
        self.adapter = self._adapter()
        layers = self.adapter.layers(self.model, 0)
        self.model = attach(self.model, {f.name: f for f in vanilla(layers)}, self.adapter)[0]
        for micro in (2, 16):
            yield f"step_micro_batch_{micro}", partial(self._step, micro)

    def _adapter(self) -> Adapter:
        return Adapter(RANK, 2 * RANK, 0.0, self.config.lora_targets["all"])

    def _shape(self) -> dict[str, Any]:
        size = 256 if self.tiny else 8192
        a, b = (torch.randn(size, size, device=self.device, dtype=self.model.dtype) for _ in "ab")
        self.rate = 2 * size**3 / self._seconds(lambda: a @ b)
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "dtype": self.config.dtype,
            "attention": self.model.config._attn_implementation,
            "product_tflops": self.rate / 1e12,
        }

    def _step(self, micro: int) -> dict[str, Any]:
        """Time the micro-batches of an update at TOFU's lengths: as drawn, sorted, in one forward."""
        objective = Objective(ihl, step.SETS)
        size = 4 if self.tiny else 32
        micro = min(micro, size)
        found: dict[str, Any] = {}
        for name, bucket in (("drawn", None), ("sorted", Bucket(1, size, micro))):
            stream = Stream(self.stream_sets, size, 0, bucket=bucket)
            batches: list[Batch] = [
                {
                    name: to_device(one, self.device)
                    for name, one in collate([stream[k + j] for j in range(micro)]).items()
                }
                for k in range(0, size, micro)
            ]
            flops = StepFlops.of(self.model)
            total = sum(flops.flops(batch[name]) for batch in batches for name in step.SETS)
            real = sum(int(b[name]["attention_mask"].sum()) for b in batches for name in step.SETS)
            losses = [partial(objective, self.model, batch) for batch in batches]
            ways: dict[str, list[Callable[[], torch.Tensor]]]
            ways = {"two_forwards": [partial(_total, of) for of in losses]}
            if bucket is None:
                ways["one_forward"] = [self._jointly(batch) for batch in batches]
            for way, micro_batches in ways.items():
                seconds = self._seconds(partial(self._update, micro_batches))
                found[f"{name}_{way}"] = {
                    "seconds_per_update": seconds,
                    "real_tokens_per_second": real / seconds,
                    "share_of_product_speed": total / seconds / self.rate,
                }
        return found

    def _update(self, losses: list[Callable[[], torch.Tensor]]) -> None:
        """Compute the gradients of an update in bf16, as a run does on a card that has it."""
        for loss in losses:
            with (
                torch.autocast(self.device.type, torch.bfloat16),
                disable_input_dtype_casting(self.model),
            ):
                total = loss()
            total.backward()
        self.model.zero_grad()

    def _jointly(self, batch: Batch) -> Callable[[], torch.Tensor]:
        """Return what computes IHL + CE with forget and retain texts in one forward pass."""
        texts = []
        for name in step.SETS:
            one = batch[name]
            for row, length in enumerate(one["attention_mask"].sum(1).tolist()):
                ids, marks = (one[k][row, :length].tolist() for k in ("input_ids", "labels"))
                texts.append(Sequence(tuple(ids), tuple(marks)))
        both = to_device(pad(texts), self.device)
        rows, columns = both["predicting"]
        labels = both["labels"][rows, columns + 1]
        split = batch["forget"]["predicting"].shape[1]
        head = self.model.get_output_embeddings()

        def loss() -> torch.Tensor:
            hidden = hidden_before_head(self.model, both)[rows, columns]
            return (
                apply_term(inverted_hinge, hidden[:split], labels[:split], head).mean()
                + apply_term(cross_entropy, hidden[split:], labels[split:], head).mean()
            )

        return loss

    def _fisher_hooks(self) -> dict[str, Any]:
        texts, layers = self._fisher_texts(), linear_layers(self.model)
        way = partial(diagonal_fisher, self.model, layers, texts, micro_batch_size=8)
        return self._per_text(
            way, texts, fisher_flops(self.model, layers, texts, micro_batch_size=8)
        )

    def _fisher_sweep(self) -> dict[str, Any]:
        texts, layers = self._fisher_texts(), linear_layers(self.model)
        half = len(texts) // 2

        def way() -> None:
            sets = (texts[:half], texts[half:])
            sweep_fisher(self.model, layers, *sets, lambda *_: None, micro_batch_size=8)

        flops = fisher_flops(self.model, layers, texts, micro_batch_size=8, sweep=True)
        return self._per_text(way, texts, flops)

    def _per_text(
        self, way: Callable[[], Any], texts: list[Sequence], flops: int
    ) -> dict[str, Any]:
        seconds = self._seconds(way, repeats=1)
        return {
            "texts": len(texts),
            "seconds": seconds,
            "seconds_for_400_and_400": seconds / len(texts) * 800,
            "share_of_product_speed": flops / seconds / self.rate,
        }

    def _fisher_texts(self) -> list[Sequence]:
        return self.stream_sets["forget"][: 4 if self.tiny else 32]

    def _low_rank(self) -> dict[str, Any]:
        layers = self._adapter().layers(self.model, 0)
        weights = {layer.name: torch.ones(len(layer.weight)) for layer in layers}
        seconds = self._seconds(
            lambda: sum(1 for _ in fila(layers, lambda **_: Importance(weights, 0.0))), repeats=1
        )
        return {"layers": len(layers), "rank": RANK, "seconds": seconds}

    def _cross_entropy(self) -> dict[str, Any]:
        """Time the chunked head beside torch's own linear cross-entropy, forward and backward."""
        head = self.model.get_output_embeddings().requires_grad_(False)
        vocabulary, width = head.weight.shape
        rows = 64 if self.tiny else 2048
        hidden = torch.randn(rows, width, device=self.device, dtype=self.model.dtype)
        labels = torch.randint(vocabulary, (rows,), device=self.device)
        ours = partial(_backward, hidden, lambda h: apply_term(cross_entropy, h, labels, head))
        found = {"rows": rows, "ours_seconds": self._seconds(ours)}
        fused = getattr(functional, "linear_cross_entropy", None)
        if fused is not None:
            torchs = partial(_backward, hidden, lambda h: fused(h, head.weight, labels))
            found["torch_seconds"] = self._seconds(torchs)
        return found

    @torch.no_grad()
    def _extraction(self) -> dict[str, Any]:
        """Time EL and MA of random texts: nearly every prefix is decoded."""
        texts, length = (4, 24) if self.tiny else (32, 200)
        ids = torch.randint(self.model.config.vocab_size, (texts, length)).tolist()
        rows = [tuple(row) for row in ids]
        cache = 2**28 if self.tiny else 20 * 10**9
        way = partial(
            greedy_continuations, self.model, rows, lambda ids, guess: wanted(ids, guess, 10), cache
        )
        seconds = self._seconds(way, repeats=1)
        return {"texts": texts, "tokens": length, "seconds": seconds}

    def _answers(self) -> dict[str, Any]:
        """Time TOFU's evaluation: seven answers a question scored, one generated."""
        questions = 4 if self.tiny else 64
        asked = partial(Inference, self.model, self.tokenizer, batch_tokens=16384, max_length=512)
        texts = [t for k in range(questions) for t in [self.stream_sets["forget"][k]] * 7]
        scored = [Instance("token_scores", {}, (str(i), text), 0) for i, text in enumerate(texts)]
        budget = 40 if self.tiny else 200
        prompts = [text.ids[:20] for text in self.stream_sets["retain"][:questions]]
        generated = [
            Instance("generate_ids", {}, (str(i), ids, budget), 0) for i, ids in enumerate(prompts)
        ]
        scoring = self._seconds(lambda: UnlearnLM(Answers(), asked).token_scores(scored), repeats=1)
        generating = self._seconds(
            lambda: UnlearnLM(Answers(), asked).generate_ids(generated), repeats=1
        )
        return {
            "questions": questions,
            "scored_tokens_per_second": sum(len(text.ids) for text in texts) / scoring,
            "generated_tokens_per_second": questions * (budget - 20) / generating,
        }

    def _seconds(self, way: Callable[[], Any], repeats: int = 3) -> float:
        """Return the median seconds of a way after one run to warm up."""
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            way()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[1:])


def _total(loss: Callable[[], Any]) -> torch.Tensor:
    total: torch.Tensor = loss().total
    return total


def _backward(hidden: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]) -> None:
    loss(hidden.detach().requires_grad_()).mean().backward()
