"""Gradient unlearning, loss x init: the method between target model and evaluation.

It takes a target model and records and returns a language model that can give logits, generate, be
saved and loaded. Another method fits the same hole.
"""

import importlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from loku_exp.config.schema import Component, Config
from loku_exp.data.batches import pad, to_device
from loku_exp.errors import TrainingError
from loku_exp.evaluation.tdec.stop_check import Thresholds, check
from loku_exp.fisher.measure import draw_retain, fisher_measure
from loku_exp.inits.interface import Factors, Importance, Layer, MeasureFisher
from loku_exp.methods.adapter import Adapter, fold
from loku_exp.methods.stop_rule import UntilForgotten
from loku_exp.methods.unlearning import Unlearned, gathered, initial_file, plan_of, unlearn
from loku_exp.models import load as models
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.cache import Cache, digest, write_folder
from loku_exp.runtime.seeds import derive
from loku_exp.stages.bases import Base, load_base
from loku_exp.stages.inputs import Materials, load_materials

log = logging.getLogger(__name__)
# Of the logits' spread, by the base's precision. Measured: rounding gives 4e-7 in fp32 and 6e-3 in bf16, an
# adapter that was not folded 0.3 to 0.8.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
NUM_PROBES = 4


def plan_adapter(config: Config, materials: Materials) -> Adapter | None:
    """Return the adapter, checked against the architecture; None for full fine-tuning.

    Raises:
        UserError: a target matches no layer, the rank is too large, the loss or the init wants more
            than the dataset has.
    """
    plan_of(config.training, len(materials.records.forget))
    num_retain = (config.init.knobs if config.init else {}).get("num_retain")
    if num_retain is not None:
        draw_retain(materials.records.retain, num_retain, seed=0)
    if not config.lora.enabled:
        return None
    adapter = Adapter(
        rank=int(config.lora.rank or 0),
        alpha=int(config.lora.alpha or 0),
        dropout=float(config.lora.dropout or 0),
        targets=config.model.lora_targets[str(config.lora.targets)],
    )
    with torch.device("meta"):
        skeleton = models.from_architecture(config.model, materials.tokenizer)
    adapter.layers(skeleton, seed=0)
    return adapter


def apply(
    model: PreTrainedModel,
    base: Base,
    adapter: Adapter | None,
    config: Config,
    materials: Materials,
    cache: Cache,
    folder: Path,
    thresholds: Thresholds | None,
) -> Unlearned:
    """Unlearn the forget set from a target model; what it needs to go on later lies in `folder`."""
    records = materials.records
    device = models.resolve_device(config.device)
    autocast = models.resolve_autocast(config.training.autocast, device)
    recipe = config.training.model_copy(update={"autocast": autocast})
    initialise = None
    if config.init is not None and adapter is not None:
        layers = adapter.layers(model, derive(config.seed, "init"))
        identity = digest([base.identity, config.model.dtype])
        measure = fisher_measure(model, identity, records.forget, records.retain, cache)
        initialise = partial(initial_factors, config.init, layers, measure)
        initial_file(folder, initialise)
    parallel.together(_join, base, config, folder, thresholds)
    until = None
    if thresholds is not None:
        texts = [record.prompt for record in records.evaluation["forget"]]
        until = partial(
            UntilForgotten,
            partial(
                check,
                texts=texts,
                thresholds=thresholds,
                end_of_text=materials.suite.end_of_text,
                decode_bytes=config.evaluation.decode_bytes,
            ),
            thresholds,
            folder=folder,
        )
    unlearned = unlearn(
        model,
        records,
        partial(config.loss.resolve(), **config.loss.knobs),
        config.loss.inputs,
        recipe,
        adapter=adapter,
        initialise=initialise,
        folder=folder,
        seed=config.seed,
        until=until,
        sharded=config.parallel == "fsdp2",
    )
    if config.parallel == "fsdp2" and parallel.rank() == 0:  # this model has a share of the weights
        whole = load_base(base, config, materials, train_all=adapter is None)
        unlearned = gathered(unlearned, whole, adapter)
    if adapter is None:
        models.store_as(unlearned.model, config.model.dtype)  # evaluated as it is shipped
    return unlearned


def _join(base: Base, config: Config, folder: Path, thresholds: Thresholds | None) -> None:
    """Unlearn with rank zero, from a copy of the target of this rank's own."""
    torch.set_num_threads(config.threads)
    cache = Cache(config.cache_dir)
    materials = load_materials(config, cache)
    adapter = plan_adapter(config, materials)
    model = load_base(base, config, materials, train_all=adapter is None)
    apply(model, base, adapter, config, materials, cache, folder, thresholds)


def initial_factors(
    init: Component, layers: list[Layer], measure: MeasureFisher
) -> tuple[dict[str, Factors], dict[str, Any]]:
    """Run an init; return its factors by layer, and what it found about the importance, if asked.

    Args:
        init: function and knobs; its module may offer ``flops(name, layers, knobs)``.
        layers: the adapted layers.
        measure: measures importance; called only by an init that takes ``fisher``.
    """
    report: dict[str, Any] = {}

    def fisher(**knobs: Any) -> Importance:
        importance = measure(**knobs)
        report["epsilon_share"] = importance.epsilon_share
        report["epsilon_dominates"] = importance.epsilon_share > 0.5
        report["fisher_flops"] = importance.flops
        return importance

    log.info("initialising the adapter with %s", init.name)
    available = {"layers": layers, "fisher": fisher}
    made = init.resolve()(**{name: available[name] for name in init.inputs}, **init.knobs)
    factors_by_layer = {factors.name: factors for factors in made}
    counted = getattr(importlib.import_module(init.target.rpartition(".")[0]), "flops", None)
    if counted is not None:
        report["low_rank_flops"] = counted(init.name, layers, init.knobs)
    return factors_by_layer, report


def ship(
    unlearned: Unlearned,
    base: Base,
    adapter: Adapter | None,
    config: Config,
    materials: Materials,
    folder: Path,
) -> float:
    """Write what a user takes away, and check it: an adapter for the untouched target, or a model.

    The check loads the target afresh, puts the written adapter on it with plain peft, and compares
    logits with those of the model in memory.

    Returns:
        The largest difference of a logit.

    Raises:
        TrainingError: it is more than rounding can explain.
    """
    probes = [record.answer for record in materials.records.forget[:NUM_PROBES]]
    expected = _logits(unlearned.model, probes)
    if adapter is None:
        place = folder / "model"
        model = unlearned.model
        if not place.is_dir():
            write_folder(place, lambda aside: _save(model, materials, aside), {"base": base.path})
        reloaded: nn.Module = models.load_model(
            config.model, str(place), models.resolve_device(config.device)
        )
    else:
        place = folder / "adapter"
        if not place.is_dir():
            factors = unlearned.factors
            peft_model: Any = unlearned.model
            write_folder(
                place, lambda aside: fold(peft_model, factors, adapter, aside), {"base": base.path}
            )
        reloaded = PeftModel.from_pretrained(load_base(base, config, materials), str(place)).eval()
    difference = _logits(reloaded, probes) - expected
    share = float(_spread(difference) / _spread(expected - expected.mean(-1, keepdim=True)))
    largest = float(difference.abs().max())
    log.info(
        "%s reloaded: largest difference of a logit %.1e, %.1e of their spread",
        place.name,
        largest,
        share,
    )
    if not share <= TOLERANCE[config.model.dtype]:
        raise TrainingError(
            f"{place} does not give the logits of the model in memory (they differ by {share:.2g} of their "
            "spread); please report this with the run's log"
        )
    return largest


def _spread(logits: Tensor) -> Tensor:
    return logits.square().mean().sqrt()


def _save(model: Any, materials: Materials, folder: Path) -> None:
    model.save_pretrained(folder)
    materials.tokenizer.save_pretrained(folder)


@torch.no_grad()
def _logits(model: nn.Module, sequences: list[Any]) -> Tensor:
    device = next(model.parameters()).device
    batch = to_device(pad(sequences), device)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits[batch["attention_mask"].bool()].float().cpu()
