"""Measure importance once per model, data and estimator; every rank and target set shares it."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loku_exp.data.records import Example, Sequence
from loku_exp.errors import UserError
from loku_exp.fisher.blockwise import cannot_sweep, sweep_fisher
from loku_exp.fisher.hooks import absolute_epsilon, reduce_fisher, row_weights, told_apart
from loku_exp.inits.interface import Importance, MeasureFisher
from loku_exp.models.flops import fisher_flops
from loku_exp.models.load import LinearLayer, linear_layers
from loku_exp.models.memory import activation_bytes, fits, gibibytes
from loku_exp.runtime.cache import Cache, digest
from loku_exp.runtime.knobs import FisherPass
from loku_exp.runtime.seeds import derive

log = logging.getLogger(__name__)
FISHER_FORMAT = 6  # raise by hand whenever an unchanged recipe gives other row weights or reports


def fisher_measure(
    model: nn.Module,
    identity: str,
    forget: list[Example],
    retain: list[Example],
    cache: Cache,
) -> MeasureFisher:
    """Return the callback an init measures importance with.

    Args:
        model: the target model, not adapted yet.
        identity: of its weights and precision, for the cache.
        forget: the forget set.
        retain: the retain set to draw from.
        cache: where row weights are kept.
    """

    def measure(
        *,
        group_size: int,
        epsilon: float,
        relative: bool,
        num_retain: int | None,
        seed: int,
        fisher_pass: FisherPass = "auto",
    ) -> Importance:
        """Return row weights; those measured before come from the cache."""
        drawn = draw_retain(retain, len(forget) if num_retain is None else num_retain, seed)
        sets = [[record.answer for record in records] for records in (forget, drawn)]
        knobs: Any = {"group_size": group_size, "epsilon": epsilon, "relative": relative}
        recipe = {"format": FISHER_FORMAT, "model": identity, **knobs} | {
            name: digest([[text.ids, text.labels] for text in texts])
            for name, texts in zip(("forget", "retain"), sets, strict=True)
        }

        def build(folder: Path) -> None:
            log.info("measuring the Fisher information on %d + %d texts", *map(len, sets))
            weights, report = _measured(model, sets[0], sets[1], fisher_pass, **knobs)
            save_file(weights, folder / "row_weights.safetensors")
            (folder / "report.json").write_text(json.dumps(report))

        folder = cache.entry("fisher", recipe, build)
        report = json.loads((folder / "report.json").read_text())
        return Importance(load_file(folder / "row_weights.safetensors"), **report)

    return measure


def _measured(
    model: nn.Module,
    forget: list[Sequence],
    retain: list[Sequence],
    fisher_pass: FisherPass,
    group_size: int,
    epsilon: float,
    relative: bool,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the row weights of all linear layers, epsilon's share, the FLOPs and the way they were had."""
    weights: dict[str, Tensor] = {}
    below = total = 0

    def reducer(name: str, of_forget: Tensor, of_retain: Tensor) -> None:
        nonlocal below, total
        weights[name] = row_weights(of_forget, of_retain, epsilon, relative=relative).cpu()
        limit = absolute_epsilon(of_retain, epsilon, relative=relative)
        below += int((of_retain < limit).sum())
        total += of_retain.numel()

    if group_size == 1:  # equal lengths together: less padding, the same sum
        forget, retain = (sorted(rows, key=lambda row: len(row.ids)) for rows in (forget, retain))
    layers = linear_layers(model)
    on_cpu = next(model.parameters()).device.type == "cpu"
    sizes = {"group_size": group_size, "micro_batch_size": 2 if on_cpu else 8}
    longest = max(len(row.ids) for row in forget + retain)
    sweeps = fisher_pass == "sweep" or (
        fisher_pass == "auto" and _wants_sweep(model, layers, max(sizes.values()), longest)
    )
    measured = sweep_fisher if sweeps else reduce_fisher
    measured(model, layers, forget, retain, reducer, **sizes)
    sizes["micro_batch_size"] = told_apart(model, layers, **sizes)[1]
    sets = (forget, retain)
    flops = sum(fisher_flops(model, layers, rows, **sizes, sweep=sweeps) for rows in sets)
    way = "sweep" if sweeps else "hooks"
    return weights, {"epsilon_share": below / total, "flops": flops, "fisher_pass": way}


def _wants_sweep(
    model: nn.Module, layers: dict[str, LinearLayer], texts: int, longest: int
) -> bool:
    """Return whether the sums and activations of the hooked pass would not fit, and a sweep can be."""
    device = next(model.parameters()).device
    sets = 2 if device.type == "cpu" else 1  # elsewhere the other set's sums wait in main memory
    sums = 4 * sets * sum(layer.weight.numel() for layer in layers.values())
    needed = sums + activation_bytes(model, texts, longest)
    if fits(needed, device):
        return False
    reason = cannot_sweep(model, layers)
    if reason is not None:
        log.info("the Fisher information needs %s at once: %s", gibibytes(needed), reason)
        return False
    log.info(
        "the Fisher information of all layers at once needs %s; measuring it block by block",
        gibibytes(needed),
    )
    return True


def draw_retain(retain: list[Example], count: int, seed: int) -> list[Example]:
    """Return `count` different retain records, drawn with a seed of their own.

    Raises:
        UserError: there are not that many, or none.
    """
    if not retain:
        raise UserError(
            "the init measures on retain examples, and the dataset has 0; give it some, or use an init "
            "that measures on none, e.g. init=vanilla"
        )
    if count > len(retain):
        raise UserError(
            f"the Fisher information wants {count} retain examples, the dataset has {len(retain)}; set "
            "init.num_retain to fewer"
        )
    generator = torch.Generator().manual_seed(derive(seed, "fisher", "retain"))
    return [retain[i] for i in torch.randperm(len(retain), generator=generator)[:count].tolist()]
